"""One combination of server settings."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from client.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """What the server of one cell is started with. `cache_length` in positions per slot."""

    batch_size: int
    cache_length: int
    quantize: str
    sharding: str

    def __post_init__(self) -> None:
        for name in ("batch_size", "cache_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: 1 or more; got {getattr(self, name)}")
        for name in ("quantize", "sharding"):
            # Part of the cell's folder name, and of a table.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", getattr(self, name)):
                raise UsageError(
                    f"{name}: a word of letters, digits, '.', '_' and '-'; got "
                    f"{getattr(self, name)!r}"
                )

    @property
    def name(self) -> str:
        """Such as b8-c256-int8-model: unique within a sweep, and the name of the cell's folder."""
        return f"b{self.batch_size}-c{self.cache_length}-{self.quantize}-{self.sharding}"


def grid(
    batch_sizes: Sequence[int],
    cache_lengths: Sequence[int],
    quantize: Sequence[str],
    shardings: Sequence[str],
) -> tuple[Setting, ...]:
    """Every combination, the batch size changing fastest."""
    return tuple(
        Setting(batch_size, cache_length, scheme, sharding)
        for sharding, scheme, cache_length, batch_size in itertools.product(
            shardings, quantize, cache_lengths, batch_sizes
        )
    )
