"""The planner's idea of what a decode step reads, against what the engine does."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytest
from capacity_settings import setting

from capacity.serving.lengths import Lengths
from capacity.serving.schedule import schedule
from capacity.work.reading import span_of
from server.engine.config import EngineConfig
from server.engine.engine import JaxEngine
from server.engine.open import ModelChoice, open_engine
from tests.cache import CACHE
from tests.engine.driving import Ask, generate, prompt_of
from tests.models.tiny import random_tensors, tiny_spec

SLOTS, POSITIONS = 3, 400


@pytest.fixture(scope="module")
def engine() -> JaxEngine:
    source = random_tensors(tiny_spec())
    config = EngineConfig(SLOTS, POSITIONS, 64, attention="reference")
    choice = ModelChoice(source.spec, None, source)
    return open_engine(choice, config, frozenset(), devices=jax.devices()[:1], cache_dir=CACHE)


@pytest.mark.parametrize(
    "lengths",
    [
        [(10, 30), (5, 9), (90, 60)],  # a second span begins
        [(127, 4)],  # its last position, and the next
        [(200, 70), (60, 2), (30, 100)],  # the longest leaves first
        [(380, 40)],  # older positions are forgotten
    ],
    ids=str,
)
def test_the_spans_that_are_read_are_those_the_planner_counts(
    engine: JaxEngine, monkeypatch: pytest.MonkeyPatch, lengths: Sequence[tuple[int, int]]
) -> None:
    read: list[int] = []

    def noting(name: tuple, program: Callable) -> Callable:
        def run(*arguments: object) -> object:
            if name[0] == "decode":
                read.append(name[1])
            return program(*arguments)

        return run

    programs = {name: noting(name, program) for name, program in engine.programs.items()}
    monkeypatch.setattr(engine, "programs", programs)
    inputs, outputs = zip(*lengths, strict=True)
    generate(engine, [Ask(slot, prompt_of(a), b) for slot, (a, b) in enumerate(lengths)])
    plan = setting(slots=SLOTS, cache_length=POSITIONS)
    given = Lengths(np.array(inputs), np.array(outputs), "given")
    expected = schedule(given, SLOTS, plan.kept_positions).longest
    assert read == [span_of(plan, int(longest)) for longest in expected]
    assert len({*read}) > 1 or len(lengths) == 1
