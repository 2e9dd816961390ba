"""A JSON body read field by field."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from server.api.refusal import invalid

_SHOWN = 60  # characters of a value in a message


class Fields:
    """The fields of a JSON object. Absent and null are the same. Every method raises Refusal,
    naming the field, what was given and what is allowed.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str) -> Any:
        """The value as it came, or None."""
        return self._values.get(name)

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._values.get(name, default)
        return value if isinstance(value, bool) else wrong(name, value, "true or false")

    def integer(self, name: str, default: int | None = None) -> int | None:
        """A whole number, also one written as 3.0."""
        value = self._values.get(name, default)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and not is_integer(value):
            wrong(name, value, "a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong(name, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else wrong(name, value, "a finite number")

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._values.get(name)
        return value if value is None or isinstance(value, str) else wrong(name, value, "a string")

    def texts(self, name: str) -> tuple[str, ...]:
        """A string or a list of strings."""
        value = self._values.get(name, [])
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            wrong(name, value, "a string or a list of strings")
        return tuple(value)

    def object(self, name: str) -> "Fields":
        """An object, empty when absent."""
        value = self._values.get(name, {})
        return Fields(value) if isinstance(value, dict) else wrong(name, value, "an object")


def read_fields(body: bytes) -> Fields:
    """The fields of a request's body. Raises Refusal when it is not a JSON object."""
    try:
        values = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise invalid("the body is nested too deeply") from error
    except ValueError as error:  # also what is not UTF-8
        raise invalid(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise invalid(f"the body is {show(values)}; send a JSON object")
    return Fields(values)


def is_integer(value: Any) -> bool:
    """Whether a JSON value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def show(value: Any) -> str:
    """A value for a message, cut when long."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def wrong(name: str, value: Any, allowed: str) -> NoReturn:
    """Refuses a value."""
    raise invalid(f"{name} is {show(value)}; it must be {allowed}", name)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
