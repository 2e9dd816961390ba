"""One column of a table: an engine with the form of its weights and its attention."""

import re
from dataclasses import dataclass

from client.errors import UsageError

LOADSTONE, TRANSFORMERS, TORCH_XLA = "loadstone", "transformers", "torch_xla"
ENGINES = (LOADSTONE, TRANSFORMERS, TORCH_XLA)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Variant:
    """`kind` and `attention` are the engine's own words."""

    engine: str
    kind: str
    attention: str

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"--engines: {', '.join(ENGINES)}; got {self.engine!r}")
        for word in (self.kind, self.attention):
            # Part of a folder's name, and of a table.
            if not _WORD.fullmatch(word):
                raise UsageError(
                    f"{self.engine}: a word of letters, digits, '.', '_' and '-'; got {word!r}"
                )

    @property
    def name(self) -> str:
        """Such as loadstone-int8-flash."""
        return f"{self.engine}-{self.kind}-{self.attention}"

    @property
    def ours(self) -> bool:
        """Whether it is our own engine."""
        return self.engine == LOADSTONE

    def label(self, with_attention: bool) -> str:
        """As the head of a column."""
        return f"{self.engine} {self.kind}" + (f" {self.attention}" if with_attention else "")
