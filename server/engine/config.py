"""How an engine is set up."""

from dataclasses import dataclass

from server.engine.mesh import SHARDINGS

SMALLEST_SPAN = 128


@dataclass(frozen=True)
class EngineConfig:
    """Sizes are in tokens or slots.

    cache_length: positions a slot keeps; the window of rolling attention.
    chunk: the longest run of prompt tokens read in one dispatch.
    prefill_batch: prompts read together in one dispatch.
    steps: decode steps in one dispatch.
    """

    slots: int
    cache_length: int = 1024
    chunk: int = 512
    prefill_batch: int = 1
    steps: int = 1
    quantize_weights: bool = False
    quantize_kv_cache: bool = False
    sharding: str = "model"

    def __post_init__(self) -> None:
        for name in ("slots", "cache_length", "chunk", "prefill_batch", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1")
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
    def prefills(self) -> tuple[tuple[int, int], ...]:
        """(length, span) of every prefill program.

        First chunks come in every length and read nothing before them. Later ones, which are rarer,
        read the whole cache and are padded to one of two lengths: each program takes seconds to
        compile.
        """
        later = sorted({self.chunks[-1], self.chunks[len(self.chunks) // 2]})
        return (
            *((length, 0) for length in self.chunks),
            *((length, self.cache_length) for length in later),
        )

    @property
    def chunks(self) -> tuple[int, ...]:
        """The lengths that a chunk of prompt is padded to."""
        longest = min(self.chunk, self.cache_length)
        lengths, length = [], 32
        while length < longest:
            lengths.append(length)
            length *= 2
        return (*lengths, longest)
