"""Values that can cross between a candidate and its examiner: plain data, as JSON.

Scalars stand for themselves; everything else is a list of a tag and its content. Nothing that a
candidate sends can run code where it is read.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

_MOST_ITEMS = 1_000_000  # of an iterator, which may have no end


def encode(value: Any) -> Any:
    """A value as JSON knows it. TypeError for one that is not plain data."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    for tag, sequence in _SEQUENCES.items():
        if isinstance(value, sequence):
            return [tag, *map(encode, value)]
    if isinstance(value, dict):
        return ["dict", *([encode(key), encode(item)] for key, item in value.items())]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, Fraction | Decimal):
        return [type(value).__name__, str(value)]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, Iterable) and not isinstance(value, type):
        return ["iterator", *map(encode, islice(value, _MOST_ITEMS))]
    raise TypeError(f"a value of type {type(value).__name__} is not plain data")


def decode(value: Any) -> Any:
    """The value that was encoded. ValueError for anything else."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise ValueError("a JSON object is not an encoded value")
        return value
    if not value or not isinstance(value[0], str) or value[0] not in _READERS:
        raise ValueError(f"no kind of value: {value[:1]!r}")
    try:
        return _READERS[value[0]](value[1:])
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"not a {value[0]}: {error}") from error


_SEQUENCES: dict[str, type[Iterable[Any]]] = {
    "list": list, "tuple": tuple, "frozenset": frozenset, "set": set,
}  # fmt: skip


def _all(items: list[Any]) -> Iterator[Any]:
    return map(decode, items)


_READERS = {
    "list": lambda items: list(_all(items)),
    "tuple": lambda items: tuple(_all(items)),
    "set": lambda items: set(_all(items)),
    "frozenset": lambda items: frozenset(_all(items)),
    "iterator": lambda items: iter(list(_all(items))),
    "dict": lambda items: {decode(key): decode(item) for key, item in items},
    "bytes": lambda items: bytes.fromhex(*items),
    "complex": lambda items: complex(*items),
    "Fraction": lambda items: Fraction(*items),
    "Decimal": lambda items: Decimal(*items),
    "range": lambda items: range(*items),
}
