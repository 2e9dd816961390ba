"""How an engine is set up."""

from dataclasses import dataclass

from server.attention.names import IMPLEMENTATIONS
from server.engine.mesh import SHARDINGS
from server.engine.protocol import PrefillSize
from server.quant.schemes import SCHEMES

SMALLEST_SPAN = 128
SMALLEST_CHUNK = 32
PREFILL_ROWS = 8  # plain forms of attention copy the cache of each row


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
    prefill_rows: int = PREFILL_ROWS
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
        spans, span = [], SMALLEST_SPAN
        while span < self.cache_length:
            spans.append(span)
            span *= 2
        return (*spans, self.cache_length)

    @property
    def prefills(self) -> tuple[PrefillSize, ...]:
        """The sizes that a prefill dispatch is padded to, each of at most `chunk` tokens."""
        longest = min(self.chunk, self.cache_length, self.row_tokens or self.chunk)
        lengths, length = [], SMALLEST_CHUNK
        while length < longest:
            lengths.append(length)
            length *= 2
        lengths.append(longest)
        most = min(self.prefill_rows, self.slots)
        return tuple(PrefillSize(min(self.chunk // size, most), size) for size in lengths)
