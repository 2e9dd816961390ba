"""What an OpenAI server's answer says, read after the run."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from client.reading.pieces import Pieces
from client.targets.event_template import EventTemplate, parse_event
from client.targets.exchange import MALFORMED, Answer, Piece

_DONE = b"data: [DONE]\n\n"
_ODD_EVENTS = 8  # so many at either end may differ from the rest
_SHOWN = 300  # characters of an error that go into a record
# What comes of reading JSON of another form, or no JSON. The last: lists in lists in lists.
_NOT_AS_AGREED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
# A line of an event stream: a comment, or a field with or without a value.
_FIELD = re.compile(r"[A-Za-z][\w-]*(:|$)|:")
_KNOWN_FIELD = re.compile(r"(data|event|id|retry)(:|$)|:")


def read_events(
    arrivals: Iterable[tuple[float, bytes]], whole: bool = True, text: bool = True
) -> Answer:
    """The answer in a stream of server-sent events, or in one JSON document.

    An event belongs to the time at which its last byte came. What stands at the end of a body
    that was cut off (not `whole`) is left out. Without `text` the answer may be `singles`.
    """
    if isinstance(arrivals, Pieces) and not text:
        answer = _read_columns(arrivals)
        if answer is not None:
            return answer
    arrivals = list(arrivals)
    reading = _read_alike(arrivals, text)
    if reading is not None and not text:
        if reading.one_a_piece:
            singles = [piece.time for piece in reading.pieces]
            return replace(reading.answer(), pieces=(), singles=singles)
        reading = _read_alike(arrivals, text=True)
    return (reading or _read_any(arrivals, whole)).answer()


def _read_columns(pieces: Pieces) -> Answer | None:
    """The answer of a stream of one event a piece, like ones in a row: looked at as one run of
    bytes. None for any other stream.
    """
    reading, template = _Reading(), None
    first, last = 0, len(pieces)
    while template is None and first < min(last, _ODD_EVENTS):
        if not _take_event(reading, *pieces.at(first)):
            return None
        if reading.only_text:
            template = EventTemplate.of(pieces.at(first)[1])
        first += 1
    if template is None:
        return None
    while last > first and not template.fits(pieces.at(last - 1)[1]):
        last -= 1
    if len(pieces) - last > _ODD_EVENTS or not template.fits_all(pieces.between(first, last)):
        return None
    before = [piece.time for piece in reading.pieces]
    for number in range(last, len(pieces)):
        if not _take_event(reading, *pieces.at(number)):
            return None
    after = [piece.time for piece in reading.pieces[len(before) :]]
    singles = np.concatenate([before, pieces.times[first:last], after])
    if not reading.counts_pieces or len(singles) != reading.completion_tokens:
        return None
    return replace(reading.answer(), pieces=(), singles=singles)


def _take_event(reading: "_Reading", time: float, raw: bytes) -> bool:
    """Whether `raw` is one event that can be read."""
    if raw == _DONE:
        return True
    event = parse_event(raw)
    if event is None:
        return False
    try:
        reading.take(time, event)
    except _NOT_AS_AGREED:
        return False
    return True


def _read_alike(arrivals: Sequence[tuple[float, bytes]], text: bool) -> "_Reading | None":
    """A stream of one event a read, most of them alike but for their text: a tenth of the work.

    None for any other stream. Without `text` the texts of like events are not looked at.
    """
    reading, template = _Reading(), None
    for time, raw in arrivals:
        said = None
        if template is not None:
            said = template.text_of(raw) if text else "" if template.fits(raw) else None
        if said is not None:
            reading.pieces.append(Piece(time, (), said))
            continue
        if not _take_event(reading, time, raw):
            return None
        if template is None and reading.only_text:
            template = EventTemplate.of(raw)
    return reading


def _read_any(arrivals: Sequence[tuple[float, bytes]], whole: bool) -> "_Reading":
    reading = _Reading()
    for time, data in events(arrivals, whole):
        if data.strip() == "[DONE]":
            continue
        try:
            reading.take(time, json.loads(data))
        except _NOT_AS_AGREED as error:
            detail = f"{type(error).__name__} in {data[:_SHOWN]!r}"
            reading.failure = reading.failure or (MALFORMED, detail)
    return reading


def read_failure(arrivals: Iterable[tuple[float, bytes]]) -> str:
    """The message in an error's body, or the start of the body."""
    body = b"".join(content for _, content in arrivals).decode("utf-8", "replace")
    try:
        return _message(json.loads(body))[:_SHOWN] or body[:_SHOWN].strip()
    except _NOT_AS_AGREED:
        return body[:_SHOWN].strip()


def events(
    arrivals: Iterable[tuple[float, bytes]], whole: bool = True
) -> Iterator[tuple[float, str]]:
    """(time, data) of each server-sent event, however reads cut them.

    A body that is no event stream is one event, at the time of its last byte; so is a line between
    events that is none of theirs, such as an error without `data:`. With `whole` False what has
    no end is left out.
    """
    streamed: bool | None = None
    data: list[str] = []
    body: list[str] = []
    last = 0.0
    for last, line in _lines(arrivals, whole):
        if streamed is None and line.strip():
            streamed = bool(_KNOWN_FIELD.match(line))
        if not streamed:
            body.append(line)
        elif not line:
            if any(data):
                yield last, "\n".join(data)
            data.clear()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not _FIELD.match(line):
            yield last, line
    if whole and any(data):
        yield last, "\n".join(data)
    if whole and any(line.strip() for line in body):
        yield last, "\n".join(body)


def _lines(arrivals: Iterable[tuple[float, bytes]], whole: bool) -> Iterator[tuple[float, str]]:
    """(time of its last byte, text) of each line; of the last only if it has an end or `whole`."""
    held: list[bytes] = []
    time = 0.0
    for time, content in arrivals:
        held.append(content)
        if b"\n" in content:
            *ended, rest = b"".join(held).split(b"\n")
            held = [rest]
            for line in ended:
                yield time, _text_of(line)
    rest = b"".join(held)
    if whole and rest:
        yield time, _text_of(rest)


def _text_of(line: bytes) -> str:
    # Some put a mark of UTF-8 before all they say.
    return line.removesuffix(b"\r").decode("utf-8", "replace").removeprefix("\ufeff")


class _Reading:
    """An answer as its events are read, one after another."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.finish: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.queue: float | None = None
        self.prefill: float | None = None
        self.failure: tuple[str, str] | None = None

    def answer(self) -> Answer:
        """All of it."""
        return Answer(
            pieces=self.pieces,
            finish=self.finish,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            queue=self.queue,
            prefill=self.prefill,
            failure=self.failure,
        )

    @property
    def one_a_piece(self) -> bool:
        """Whether there are as many pieces as the server counts tokens, and no ids to count by."""
        return self.counts_pieces and len(self.pieces) == self.completion_tokens

    @property
    def counts_pieces(self) -> bool:
        """Whether all is well, and there are no ids to count by."""
        return self.failure is None and not any(piece.token_ids for piece in self.pieces)

    @property
    def only_text(self) -> bool:
        """Whether all that was read so far is text."""
        said = (self.finish, self.prompt_tokens, self.completion_tokens, self.queue, self.failure)
        ids = any(piece.token_ids for piece in self.pieces)
        return bool(self.pieces) and not ids and all(each is None for each in said)

    def take(self, time: float, event: dict[str, Any]) -> None:
        if event.get("error") or event.get("object") == "error":
            self.failure = self.failure or ("error in the stream", _message(event)[:_SHOWN])
            return
        for choice in event.get("choices") or ():
            self._take_choice(time, choice)
        usage = event.get("usage")
        if usage:
            self.prompt_tokens = _count(usage.get("prompt_tokens"), self.prompt_tokens)
            self.completion_tokens = _count(usage.get("completion_tokens"), self.completion_tokens)
        timing = event.get("timing")
        if isinstance(timing, dict):
            self.queue = _seconds(timing.get("queue_seconds"), self.queue)
            self.prefill = _seconds(timing.get("prefill_seconds"), self.prefill)

    def _take_choice(self, time: float, choice: dict[str, Any]) -> None:
        self.finish = str(choice.get("finish_reason") or "") or self.finish
        ids = tuple(choice.get("token_ids") or ())
        if not all(type(each) is int for each in ids):
            raise ValueError("token_ids that are no numbers")
        content = choice.get("delta") or choice.get("message") or choice
        text = _text(content)
        # The opening of a chat names the speaker and holds no token.
        opens = "role" in content and not text and not ids
        if ids or (text is not None and not opens):
            self.pieces.append(Piece(time, ids, text or ""))


def _text(content: dict[str, Any]) -> str | None:
    """What a choice says; None when it does not speak."""
    found = [content[key] for key in ("text", "content") if isinstance(content.get(key), str)]
    # What a model thinks is generated text too. It has two names, and some servers send both.
    thought = content.get("reasoning_content") or content.get("reasoning")
    if isinstance(thought, str):
        found.insert(0, thought)
    return "".join(found) if found else None


def _count(value: Any, before: int | None) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else before


def _seconds(value: Any, before: float | None) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < math.inf else before


def _message(body: dict[str, Any]) -> str:
    error = body.get("error") or body.get("detail") or body.get("message")
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error or "")
