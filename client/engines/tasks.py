"""What is done and timed, the same for every engine. Standard library only."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from client.engines.ask import FORWARD, GENERATE, LOSS, Ask
from client.engines.energy import Meter
from client.engines.engine import Engine

# Ids below are special tokens in most vocabularies.
FIRST_ID = 100


@dataclass(frozen=True)
class Run:
    """One timed run, in seconds from its start. `stamps`: when each new position was there, for
    generation; `value`: the loss, where it was computed."""

    seconds: float
    stamps: tuple[float, ...] = ()
    value: float | None = None


@dataclass(frozen=True)
class Timed:
    """All that was timed. `first`: seconds of the first warm-up. `joules`: over all timed runs."""

    first: float | None
    runs: tuple[Run, ...]
    joules: float | None = None
    energy_source: str | None = None
    first_row: tuple[int, ...] = ()


def run_task(
    engine: Engine, ask: Ask, vocab: int, meter: Meter | None, settled: Callable[[], None]
) -> Timed:
    """Warm-ups, then timed runs. Ids are random, the same for the same seed.

    `settled` is called between the two.
    """
    once = _TASKS[ask.task](engine, ask, vocab)
    warm = [once() for _ in range(ask.warmups)]
    settled()
    before = meter.read() if meter else 0.0
    runs: list[tuple[Run, list[int]]] = []
    began = time.perf_counter()
    while len(runs) < ask.timed or time.perf_counter() - began < ask.min_seconds:
        runs.append(once())
    joules = meter.read() - before if meter else None
    return Timed(
        first=warm[0][0].seconds if warm else None,
        runs=tuple(run for run, _ in runs),
        joules=joules,
        energy_source=meter.source if meter else None,
        first_row=tuple(runs[-1][1]),
    )


_Once = Callable[[], tuple[Run, list[int]]]


def _generating(engine: Engine, ask: Ask, vocab: int) -> _Once:
    draw = random.Random(ask.seed)
    lengths = [ask.prompts[row % len(ask.prompts)] for row in range(ask.batch)]
    prompts = [_ids(draw, length, vocab) for length in lengths]

    def once() -> tuple[Run, list[int]]:
        started = time.perf_counter()
        made = engine.generate(prompts, ask.new_tokens)
        if len(made.stamps) != ask.new_tokens:
            raise RuntimeError(
                f"{ask.engine} made {len(made.stamps)} tokens a row; asked for {ask.new_tokens}"
            )
        stamps = tuple(stamp - started for stamp in made.stamps)
        return Run(stamps[-1], stamps), made.first_row

    return once


def _passing(engine: Engine, ask: Ask, vocab: int) -> _Once:
    window = engine.window(_rows(ask, vocab))

    def once() -> tuple[Run, list[int]]:
        nonlocal window
        started = time.perf_counter()
        for _ in range(ask.new_tokens):
            window = engine.advance(window)
        return Run(time.perf_counter() - started), []

    return once


def _scoring(engine: Engine, ask: Ask, vocab: int) -> _Once:
    window = engine.window(_rows(ask, vocab))

    def once() -> tuple[Run, list[int]]:
        started = time.perf_counter()
        value = engine.loss(window)
        return Run(time.perf_counter() - started, value=value), []

    return once


_TASKS: dict[str, Callable[[Engine, Ask, int], _Once]] = {
    GENERATE: _generating,
    FORWARD: _passing,
    LOSS: _scoring,
}


def _rows(ask: Ask, vocab: int) -> Sequence[Sequence[int]]:
    draw = random.Random(ask.seed)
    return [_ids(draw, ask.context, vocab) for _ in range(ask.batch)]


def _ids(draw: random.Random, count: int, vocab: int) -> list[Any]:
    return [draw.randrange(min(FIRST_ID, vocab - 1), vocab) for _ in range(count)]
