"""How an engine is set up."""

from dataclasses import dataclass

from server.attention.names import IMPLEMENTATIONS
from server.engine.mesh import SHARDINGS
from server.engine.protocol import PrefillSize
from server.models import sizes
from server.quant.schemes import SCHEMES


@dataclass(frozen=True)
class EngineConfig:
    """Sizes are in tokens or slots.

    cache_length: positions a slot keeps; the window of rolling attention.
    chunk: prompt tokens read in one dispatch: of one prompt, or of several short ones.
    prefill_rows, row_tokens: the most prompts in a prefill dispatch, and the most tokens of each;
    None: as many as the chunk has.
    steps: decode steps in one dispatch.
    weights: how weights are stored, one of SCHEMES.
    attention: flash, or reference: plain XLA.
    """

    slots: int
    cache_length: int = 1024
    chunk: int = 512
    prefill_rows: int = sizes.PREFILL_ROWS
    row_tokens: int | None = None
    steps: int = 1
    weights: str = "none"
    quantize_kv_cache: bool = False
    sharding: str = "model"
    attention: str = "flash"

    def __post_init__(self) -> None:
        for name in ("slots", "cache_length", "chunk", "prefill_rows", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1")
        if self.row_tokens is not None and self.row_tokens < 1:
            raise ValueError(f"row_tokens is {self.row_tokens}; at least 1")
        if self.weights not in SCHEMES:
            raise ValueError(f"weights are {self.weights!r}; allowed: {', '.join(SCHEMES)}")
        if self.attention not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention is {self.attention!r}; allowed: {', '.join(IMPLEMENTATIONS)}"
            )
        if self.sharding not in SHARDINGS:
            raise ValueError(f"sharding is {self.sharding!r}; allowed: {', '.join(SHARDINGS)}")

    @property
    def spans(self) -> tuple[int, ...]:
        """How much of the cache a decode step may read: powers of two up to all of it."""
        return sizes.spans(self.cache_length)

    @property
    def prefills(self) -> tuple[PrefillSize, ...]:
        """The sizes that a prefill dispatch is padded to, each of at most `chunk` tokens."""
        found = sizes.prefill_sizes(
            self.slots, self.cache_length, self.chunk, self.prefill_rows, self.row_tokens
        )
        return tuple(PrefillSize(rows, tokens) for rows, tokens in found)
