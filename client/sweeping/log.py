"""What the log of a process says at its end."""

import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_ERROR = re.compile(r"\berror\b|[a-z]Error\b|\bexception\b", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"\bMemoryError\b|\bRESOURCE_EXHAUSTED\b|\bstd::bad_alloc\b"
    r"|\bOutOfMemoryError\b|can't allocate memory|[Cc]annot allocate memory"
)
_LONGEST = 400


def last_line(log: Path) -> str:
    """The last line that is not empty; "" without one. A line drawn over counts as it is now."""
    lines = _lines(log)
    return _short(lines[-1]) if lines else ""


def last_error(log: Path) -> str:
    """The last line that speaks of an error, or else the last line."""
    found = [line for line in _lines(log) if _ERROR.search(line)]
    return _short(found[-1]) if found else last_line(log)


def last_with(log: Path, word: str) -> str | None:
    """The last line with a word, if there is one."""
    found = [line for line in _lines(log) if word in line]
    return _short(found[-1]) if found else None


def out_of_memory(log: Path) -> str | None:
    """The last line that says that memory was lacking, if there is one."""
    found = [line for line in _lines(log) if _NO_MEMORY.search(line)]
    return _short(found[-1]) if found else None


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    drawn = (line.rstrip("\r").rpartition("\r")[2].strip() for line in text.split("\n"))
    return [line for line in drawn if line]


def _short(line: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in line).strip()
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 2] + " …"
