"""Values of a record that anyone may have written: numbers that are numbers, text that is short."""

import math
from collections.abc import Mapping
from typing import Any

_LONGEST_TEXT = 2000


def finite(value: Any) -> float | None:
    """A number as a float; None for anything else: text, truth values, infinity, huge integers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def text(value: Any) -> str:
    """A value in a line of text: nested ones as `name: value`, None as a dash, long ones cut."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}: {text(each)}" for name, each in value.items())
        return _cut(inner) or "-"
    if isinstance(value, list | tuple):
        return _cut(", ".join(text(each) for each in value)) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return _cut(str(value))


def number(value: Any, digits: int = 2) -> str:
    """A number with thousands apart, as the table of a run shows it; a dash without one."""
    found = finite(value)
    return "-" if found is None else f"{found:,.{digits}f}"


def short_number(value: Any) -> str:
    """A number with as many decimals as one reads: 0.123, 12.3, 1,234."""
    found = finite(value)
    if found is None:
        return "-"
    if found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}"
    size = abs(found)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{found:,.{digits}f}"


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object of JSON, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a list of JSON, else an empty one."""
    return value if isinstance(value, list) else []


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + " ..."
