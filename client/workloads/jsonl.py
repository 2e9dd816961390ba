"""A user's own requests: a JSON object a line."""

import json
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.workloads.entry import Entry, split_messages

_ASKED = ("prompt", "text", "messages")
_LENGTHS = ("max_tokens", "output_len")


def read_jsonl(path: Path) -> list[Entry]:
    """The entries of a file of {"prompt" | "text" | "messages", ...} lines.

    Optional: "max_tokens" or "output_len", "timestamp" in seconds (in all lines or in none), "id"
    (else the number of the line). Other keys are left alone. Raises `UsageError` with the line
    that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read the data set {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(json.loads(line), number))
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
    timed = sum(entry.time is not None for entry in entries)
    if timed not in (0, len(entries)):
        raise UsageError(
            f"{path}: {timed} of {len(entries)} lines have a timestamp; give all of them one, "
            "or none"
        )
    return entries


def _entry(line: Any, number: int) -> Entry:
    if not isinstance(line, dict):
        raise ValueError("a line is a JSON object")
    asked = [key for key in _ASKED if line.get(key) is not None]
    if len(asked) != 1:
        raise ValueError(f"one of {', '.join(_ASKED)}; got {', '.join(asked) or 'none'}")
    name = str(line["id"]) if line.get("id") is not None else f"line {number}"
    length, time = _length(line), _time(line.get("timestamp"))
    if asked == ["messages"]:
        messages, answer = split_messages(line["messages"])
        return Entry(name, messages=messages, answer=answer, max_tokens=length, time=time)
    text = line[asked[0]]
    if not isinstance(text, str) or not text:
        raise ValueError(f"{asked[0]}: a text that is not empty; got {text!r}")
    return Entry(name, text=text, max_tokens=length, time=time)


def _length(line: dict[str, Any]) -> int | None:
    given = {key: line[key] for key in _LENGTHS if line.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}: a whole number, 1 or more; got {value!r}")
    if len(set(given.values())) > 1:
        raise ValueError(f"max_tokens and output_len differ: {given}")
    return next(iter(given.values()), None)


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"timestamp: seconds; got {value!r}")
    return float(value)
