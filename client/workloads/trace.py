"""Prompts with the lengths, the times and the shared parts of a trace."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from client.errors import UsageError
from client.workloads.limits import Limits
from client.workloads.prompt import Prompt
from client.workloads.trace_file import TraceRow
from client.workloads.writer import Writer

OVERLONG = ("clip", "skip")
# A hash id of a Mooncake trace stands for so many tokens.
BLOCK_TOKENS = 512


@dataclass(frozen=True)
class TraceSettings:
    """`speed` 2 sends the trace in half its time; `scale` multiplies every length.

    `overlong`: requests over the limits are cut ("clip") or left out ("skip").
    """

    speed: float = 1.0
    scale: float = 1.0
    overlong: str = "clip"

    def __post_init__(self) -> None:
        for option, value in (("--trace-speed", self.speed), ("--trace-scale", self.scale)):
            if not 0 < value < math.inf:
                raise UsageError(f"{option}: a factor above 0; got {value}")
        if self.overlong not in OVERLONG:
            raise UsageError(f"--trace-overlong: {', '.join(OVERLONG)}; got {self.overlong!r}")


@dataclass
class Tally:
    """What became of the rows: `clipped` were cut, `skipped` were too long, `empty` too short."""

    clipped: int = 0
    skipped: int = 0
    empty: int = 0


@dataclass(frozen=True)
class TimedPrompts:
    """The prompts, when each is due in seconds from the start, and what became of the rest."""

    prompts: tuple[Prompt, ...]
    due: tuple[float, ...]
    tally: Tally = field(default_factory=Tally)


def make_from_trace(
    rows: Sequence[TraceRow],
    settings: TraceSettings,
    limits: Limits,
    output_length: int,
    count: int,
    seed: int,
    writer: Writer,
) -> TimedPrompts:
    """A prompt for each of the first `count` rows that can be used.

    Blocks of the same id have the same content, so prompts share just what they shared in the
    trace; the content depends on the seed. `output_length` above 0 is asked of every request.
    Rows of no input or no output tokens are left out. Raises `UsageError` when no row is left.
    """
    tally = Tally()
    content = _Content(settings.scale, seed, writer)
    usable = _usable(rows, settings, limits, output_length, writer.shortest, tally)
    prompts: list[Prompt] = []
    due: list[float] = []
    for row in islice(usable, count):
        number = len(prompts)
        generator = np.random.default_rng([seed, 0, number])
        words = content.words(row, generator)
        keep = min(len(row.blocks) * content.block_tokens, row.inputs)
        prompts.append(writer.write(f"trace-{number}", words, row.outputs, generator, keep))
        due.append(row.time / settings.speed)
    if not prompts:
        raise UsageError(
            f"none of the {len(rows)} requests of the trace can be used: {tally.skipped} are over "
            f"--max-input-length or --max-target-length, {tally.empty} have no tokens"
        )
    return TimedPrompts(tuple(prompts), tuple(due), tally)


def _usable(
    rows: Sequence[TraceRow],
    settings: TraceSettings,
    limits: Limits,
    output_length: int,
    shortest: int,
    tally: Tally,
) -> Iterator[TraceRow]:
    for row in rows:
        if not row.inputs or not (output_length or row.outputs):
            tally.empty += 1
            continue
        inputs = max(round(row.inputs * settings.scale), shortest)
        outputs = output_length or max(round(row.outputs * settings.scale), 1)
        cut = limits.clip(inputs, outputs)
        if cut != (inputs, outputs):
            if settings.overlong == "skip":
                tally.skipped += 1
                continue
            tally.clipped += 1
        yield TraceRow(row.time, *cut, row.blocks)


class _Content:
    """The words of blocks by their id, made when first needed."""

    def __init__(self, scale: float, seed: int, writer: Writer) -> None:
        self.block_tokens = max(round(BLOCK_TOKENS * scale), 1)
        self._seed = seed
        self._writer = writer
        self._blocks: dict[int, list[int]] = {}

    def words(self, row: TraceRow, generator: np.random.Generator) -> list[int]:
        """As many words as the row's prompt has tokens; those after its blocks are its own."""
        words: list[int] = []
        for block in row.blocks[: -(-row.inputs // self.block_tokens)]:
            words += self._block(block)
        del words[row.inputs :]
        return words + self._writer.random(row.inputs - len(words), generator)

    def _block(self, block: int) -> list[int]:
        if block not in self._blocks:
            generator = np.random.default_rng([self._seed, 1, block])
            self._blocks[block] = self._writer.random(self.block_tokens, generator)
        return self._blocks[block]
