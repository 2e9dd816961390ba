"""Events of one stream that differ in their text alone."""

import json
from dataclasses import dataclass
from typing import Any

from client.reading.pieces import Pieces

_KEYS = (b'"text":"', b'"text": "', b'"content":"', b'"content": "')
_PLAIN = "loadstone"


@dataclass(frozen=True, slots=True)
class EventTemplate:
    """What stands before and after the text of an event, `data: ` and the blank line with it."""

    before: bytes
    after: bytes

    @classmethod
    def of(cls, raw: bytes) -> "EventTemplate | None":
        """The template of a whole event, if changing its text changes nothing else in it."""
        for key in _KEYS:
            if raw.count(key) != 1:
                continue
            start = raw.index(key) + len(key)
            end = raw.find(b'"', start)
            found = cls(raw[:start], raw[end:])
            if found.text_of(raw) is not None and found._holds_text():
                return found
        return None

    def text_of(self, raw: bytes) -> str | None:
        """The text of an event of this kind; None for any other, and for text with escapes."""
        before, after = self.before, self.after
        if not (raw.startswith(before) and raw.endswith(after)):
            return None
        text = raw[len(before) : len(raw) - len(after)]
        if b'"' in text or b"\\" in text or b"\n" in text:
            return None
        try:
            return text.decode()
        except UnicodeDecodeError:
            return None

    def fits(self, raw: bytes) -> bool:
        """Whether a read is one event of this kind; what its text is, is not looked at."""
        # Two events that came in one read start and end alike too, but have more lines.
        one = raw.count(b"\n") == 2
        return one and raw.startswith(self.before) and raw.endswith(self.after)

    def fits_all(self, pieces: Pieces) -> bool:
        """Whether each piece is one event of this kind; what the texts are, is not looked at."""
        count, body = len(pieces), pieces.body
        if not count:
            return True
        # As many events as pieces and no line more, and a piece ends only where an event does.
        return (
            body.startswith(self.before)
            and body.endswith(self.after)
            and body.count(self.after + self.before) == count - 1
            and body.count(b"\n") == 2 * count
            and all(body[end - 2 : end] == b"\n\n" for end in pieces.ends.tolist())
        )

    def _holds_text(self) -> bool:
        """Whether a reader of JSON sees text put here where it sees the text of the stream."""
        event = parse_event(self.before + _PLAIN.encode() + self.after)
        for choice in (event or {}).get("choices") or ():
            content = choice.get("delta") or choice.get("message") or choice
            # Beside a role, no text is no token: there the text does change something else.
            if _PLAIN in (content.get("text"), content.get("content")):
                return "role" not in content
        return False


def parse_event(raw: bytes) -> dict[str, Any] | None:
    """The object in one whole event of one data line; None for anything else."""
    if not raw.startswith(b"data: {") or not raw.endswith(b"}\n\n") or raw.count(b"\n") != 2:
        return None
    try:
        found = json.loads(raw[6:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
