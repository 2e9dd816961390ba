"""What a run of the in-process benchmark measures; another value makes it another run."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from client.engines.ask import FORWARD, GENERATE, LOSS
from client.engines.point import Point
from client.engines.variant import ENGINES, LOADSTONE, TORCH_XLA, TRANSFORMERS, Variant
from client.errors import UsageError

TASKS = (GENERATE, FORWARD, LOSS)


@dataclass(frozen=True)
class Measuring:
    """Lengths in tokens, one value of a list for each point.

    quantize, attention: of our engine, by its names; the kinds and attentions of the others by
    theirs. prompts: lengths that a batch goes round through (generate); contexts: of a row
    (forward, loss). new_tokens: made of each row; for forward, passes in a minibatch. timed runs go
    on for `min_seconds` at least. rounds: how often all points are measured, one after the other.
    memory_limit_gib: of the heap of a point's process. engine_options: of our server.
    """

    preset: str
    task: str
    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    engines: tuple[str, ...] = (LOADSTONE, TRANSFORMERS)
    quantize: tuple[str, ...] = ("none", "int8")
    attention: tuple[str, ...] = ("flash",)
    transformers_kinds: tuple[str, ...] = ("float32", "bfloat16")
    transformers_attention: tuple[str, ...] = ("auto",)
    torch_xla_kinds: tuple[str, ...] = ("bfloat16",)
    prompts: tuple[int, ...] = ()
    contexts: tuple[int, ...] = ()
    new_tokens: int = 0
    warmups: int = 1
    timed: int = 1
    min_seconds: float = 0.0
    rounds: int = 1
    seed: int = 0
    platform: str | None = None
    memory_limit_gib: float | None = None
    transformers_python: str | None = None
    torch_xla_python: str | None = None
    cache_dir: str | None = None
    engine_options: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UsageError(f"task: {', '.join(TASKS)}; got {self.task!r}")
        for name in ("models", "engines", "batch_sizes"):
            self._check_list(name)
        kinds = {
            LOADSTONE: ("quantize", "attention"),
            TRANSFORMERS: ("transformers_kinds", "transformers_attention"),
            TORCH_XLA: ("torch_xla_kinds",),
        }
        for name in (name for engine in self.engines for name in kinds.get(engine, ())):
            self._check_list(name)
        for name in ("batch_sizes", "prompts", "contexts"):
            if min(getattr(self, name), default=1) < 1:
                raise UsageError(f"{flag(name)}: 1 or more; got {min(getattr(self, name))}")
        self._check_task()
        for name, least in (("warmups", 0), ("timed", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{flag(name)}: {least} or more; got {getattr(self, name)}")
        if not (self.min_seconds >= 0 and math.isfinite(self.min_seconds)):
            raise UsageError(f"--min-seconds: 0 or more; got {self.min_seconds}")
        assert self.variants, "every engine has a kind and an attention"
        limit = self.memory_limit_gib
        if limit is not None and not (limit > 0 and math.isfinite(limit)):
            raise UsageError(f"--memory-limit-gib: a number above 0; got {limit}")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The columns, engine by engine in the order given."""
        kinds = {
            LOADSTONE: (self.quantize, self.attention),
            TRANSFORMERS: (self.transformers_kinds, self.transformers_attention),
            TORCH_XLA: (self.torch_xla_kinds, ("auto",)),
        }
        return tuple(
            Variant(engine, kind, attention)
            for engine in self.engines
            for kind in kinds[engine][0]
            for attention in kinds[engine][1]
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """The contexts of the points: those of the rows, or the longest prompt."""
        return (max(self.prompts),) if self.task == GENERATE else self.contexts

    def points(self, labels: Sequence[str]) -> tuple[Point, ...]:
        """In the order they are measured in: engines beside each other at each size, so that a
        change of the machine's speed meets all of them. `labels` name the models."""
        return tuple(
            Point(label, variant, batch, context, turn)
            for turn in range(1, self.rounds + 1)
            for label in labels
            for context in self.lengths
            for batch in sorted(self.batch_sizes)
            for variant in self.variants
        )

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def _check_list(self, name: str) -> None:
        values = getattr(self, name)
        if not values:
            raise UsageError(f"{flag(name)}: one or more values, separated by commas; got none")
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise UsageError(f"{flag(name)}: {twice[0]} stands there twice")

    def _check_task(self) -> None:
        for engine in self.engines:
            if engine not in ENGINES:
                raise UsageError(f"--engines: {', '.join(ENGINES)}; got {engine!r}")
        if self.task != GENERATE:
            self._check_list("contexts")
        elif not self.prompts:
            raise UsageError("--prompts: one or more lengths in tokens; got none")
        least = {GENERATE: 2, FORWARD: 1, LOSS: 0}[self.task]
        if self.new_tokens < least:
            raise UsageError(f"--new-tokens: {least} or more; got {self.new_tokens}")


def flag(name: str) -> str:
    """The option that sets a field."""
    return f"--{name.replace('_', '-')}"
