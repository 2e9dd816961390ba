"""One line of the table: a model as it is stored in one way."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from client.errors import UsageError

KV_CACHES = ("none", "int8")
PLAIN = "none"
_SERVED = "served"


@dataclass(frozen=True)
class Row:
    """`weights`: the name of a scheme. `kv_cache`: one of KV_CACHES.

    For another server, whose storage is its own affair, a label and `kv_cache` "served".
    """

    weights: str
    kv_cache: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.weights):
            raise UsageError(
                f"a row's name has letters, digits, '.', '_' and '-'; got {self.weights!r}"
            )

    @property
    def name(self) -> str:
        """Such as int8-kv-none; a part of file names."""
        return self.weights if self.served else f"{self.weights}-kv-{self.kv_cache}"

    @property
    def served(self) -> bool:
        """Whether another server stores it."""
        return self.kv_cache == _SERVED

    @property
    def plain(self) -> bool:
        """Whether nothing is quantized: what the others are compared with."""
        return self.weights == self.kv_cache == PLAIN

    @property
    def engine_options(self) -> list[str]:
        """Options of `python -m server`."""
        cache = "--quantize-kv-cache" if self.kv_cache == "int8" else "--no-quantize-kv-cache"
        return ["--quantize-weights", self.weights, cache]


def rows(schemes: Sequence[str], kv_caches: Sequence[str], known: Sequence[str]) -> tuple[Row, ...]:
    """Every combination. `known` are the engine's schemes; ("all",) asks for all of them."""
    wanted = tuple(known) if tuple(schemes) == ("all",) else tuple(schemes)
    _check("--quantize", wanted, (*known, "all"))
    _check("--kv-cache", kv_caches, KV_CACHES)
    pairs = itertools.product(wanted, kv_caches)
    return tuple(Row(scheme, cache) for scheme, cache in pairs)


def served(label: str) -> Row:
    """The row of another server."""
    return Row(label, _SERVED)


def _check(option: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed or (value == "all" and len(values) > 1):
            raise UsageError(f"{option}: of {', '.join(allowed)}; got {value!r}")
        if values.count(value) > 1:
            raise UsageError(f"{option}: {value} stands there twice")
