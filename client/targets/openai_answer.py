"""What an OpenAI server's answer says, read after the run."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from client.targets.exchange import MALFORMED, Answer, Piece

_SHOWN = 300  # characters of an error that go into a record


def read_events(arrivals: Iterable[tuple[float, bytes]]) -> Answer:
    """The answer in a stream of server-sent events, or in one JSON document.

    An event belongs to the time at which its last byte came.
    """
    reading = _Reading()
    for time, data in events(arrivals):
        if data == "[DONE]":
            continue
        try:
            reading.take(time, json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            detail = f"{type(error).__name__} in {data[:_SHOWN]!r}"
            reading.failure = reading.failure or (MALFORMED, detail)
    return Answer(
        pieces=reading.pieces,
        finish=reading.finish,
        prompt_tokens=reading.prompt_tokens,
        completion_tokens=reading.completion_tokens,
        queue=reading.queue,
        prefill=reading.prefill,
        failure=reading.failure,
    )


def read_failure(arrivals: Iterable[tuple[float, bytes]]) -> str:
    """The message in an error's body, or the start of the body."""
    body = b"".join(content for _, content in arrivals).decode("utf-8", "replace")
    try:
        return _message(json.loads(body))[:_SHOWN]
    except (ValueError, LookupError, TypeError, AttributeError):
        return body[:_SHOWN].strip()


def events(arrivals: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, str]]:
    """(time, data) of each server-sent event, however reads cut them.

    A body that is no event stream is one event, at the time of its last byte.
    """
    rest, last, streamed = b"", 0.0, False
    lines: list[str] = []
    for time, content in arrivals:
        last = time
        *whole, rest = (rest + content).split(b"\n")
        for raw in whole:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line and lines:
                yield time, "\n".join(lines)
                lines.clear()
            elif line.startswith("data:"):
                streamed = True
                lines.append(line[5:].removeprefix(" "))
            elif line and not streamed and line[0] in "{[":
                lines.append(line)
    tail = rest.decode("utf-8", "replace").strip()
    if tail:
        lines.append(tail.removeprefix("data:").strip())
    if lines:
        yield last, "\n".join(lines)


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

    def take(self, time: float, event: dict[str, Any]) -> None:
        if event.get("error"):
            self.failure = self.failure or ("error in the stream", _message(event)[:_SHOWN])
            return
        for choice in event.get("choices") or ():
            self._take_choice(time, choice)
        usage = event.get("usage")
        if usage:
            self.prompt_tokens = _count(usage.get("prompt_tokens"), self.prompt_tokens)
            self.completion_tokens = _count(usage.get("completion_tokens"), self.completion_tokens)
        timing = event.get("timing")
        if timing:
            self.queue = float(timing["queue_seconds"])
            self.prefill = float(timing["prefill_seconds"])

    def _take_choice(self, time: float, choice: dict[str, Any]) -> None:
        self.finish = choice.get("finish_reason") or self.finish
        ids = tuple(choice.get("token_ids") or ())
        content = choice.get("delta") or choice.get("message") or choice
        # The opening of a chat names the speaker and holds no token.
        opens = "role" in content and not _text(content) and not ids
        if ids or (_has_text(content) and not opens):
            self.pieces.append(Piece(time, ids, _text(content)))


def _has_text(content: dict[str, Any]) -> bool:
    return any(isinstance(content.get(key), str) for key in _TEXTS)


def _text(content: dict[str, Any]) -> str:
    return "".join(content[key] for key in _TEXTS if isinstance(content.get(key), str))


# What a model thinks is generated text too; servers name it in two ways.
_TEXTS = ("reasoning_content", "reasoning", "text", "content")


def _count(value: Any, before: int | None) -> int | None:
    return value if isinstance(value, int) else before


def _message(body: dict[str, Any]) -> str:
    error = body.get("error") or body.get("detail") or body.get("message")
    return str(error.get("message") if isinstance(error, dict) else error)
