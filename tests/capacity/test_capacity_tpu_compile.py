"""The engine's programs compiled for TPUs that are not here: what an engineer would look at."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from capacity.compiled.answer import Answer, Program
from capacity.compiled.ask import Ask
from capacity.compiled.process import Compiler, compiler
from capacity.compiled.target import target_of
from capacity.hardware.chips import known_chips
from capacity.hardware.slice import find_slice
from server.models.spec import ModelSpec
from tests.models.tiny import tiny_spec

pytestmark = [pytest.mark.tpu_compile, pytest.mark.timeout(900)]
MIB = 2**20
SECONDS = 800.0
# Of a 7B's width, two layers of it.
WIDE: dict[str, Any] = {
    "layers": 2, "hidden": 4096, "heads": 32, "kv_heads": 32, "head_dim": 128, "ffn": 11008,
    "vocab": 32000,
}  # fmt: skip
Answers = Callable[..., Answer]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """Answers, each compiled once."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: make test-tpu-compile ACCELERATOR=tpu")
    folder: Path = tmp_path_factory.mktemp("compiled")
    known: dict[str, Answer] = {}

    def ask(slice_name: str, spec: ModelSpec | None = None, **settings: Any) -> Answer:
        target = target_of(find_slice(slice_name, known_chips()))
        asked = Ask(target, asdict(spec or tiny_spec("llama", **WIDE)), **settings)
        key = asked.key({})
        if key not in known:
            with compiler(target, folder, None, SECONDS, print) as opened:
                known[key] = _one(opened, asked)
        return known[key]

    yield ask


def _one(opened: Compiler, asked: Ask) -> Answer:
    return opened.ask(asked)


@pytest.fixture(scope="module", params=["none", "int8"])
def programs(ask: Answers, request: pytest.FixtureRequest) -> tuple[Program, ...]:
    """Of 96 slots of 2,048 positions on v5e-8."""
    found = ask("v5e-8", slots=96, weights=request.param, cache=request.param)
    assert found.fits and not found.refusals
    return found.programs


def test_the_cache_is_never_made_anew(programs: tuple[Program, ...]) -> None:
    for one in programs:
        assert one.donated == one.donatable > 0
        copied = sum(copy.bytes for copy in one.traffic.copies)
        assert copied < one.arguments / 10, one.name
        assert one.temporaries < one.arguments / 4, one.name


def test_a_step_moves_what_it_must(programs: tuple[Program, ...]) -> None:
    """Weights and cache once: int8 is not made bfloat16 in memory."""
    decode = programs[0]
    assert decode.traffic.bytes < 1.25 * decode.arguments
    assert decode.traffic.unsure == 0


def test_two_sums_a_layer_and_only_the_embedded_tokens_gathered(
    programs: tuple[Program, ...],
) -> None:
    # 96 slots; one row of 512; 8 of 32.
    for one, tokens in zip(programs, (96, 512, 256), strict=True):
        found = one.traffic.collectives
        assert set(found) == {"all-reduce", "all-gather"}, one.name
        # Two more find the largest score of each row.
        assert found["all-reduce"].count == 2 * WIDE["layers"] + 2, one.name
        gathered = found["all-gather"]
        assert (gathered.count, gathered.bytes) == (1, tokens * WIDE["hidden"] * 2), one.name


@pytest.mark.parametrize("name", ["v5e-1", "v5e-4", "v4-8", "v5p-8", "v6e-1", "v6e-8"])
def test_other_slices(ask: Answers, name: str) -> None:
    spec = tiny_spec("llama", **{**WIDE, "layers": 1, "ffn": 1024, "vocab": 1024})
    found = ask(name, spec, slots=8, cache_length=256, programs="decode")
    assert found.fits and [one.name for one in found.programs] == ["decode 256"]


def test_batch_sharding_needs_no_collectives_but_for_sampling(ask: Answers) -> None:
    found = ask("v5e-8", slots=16, sharding="batch", cache_length=512, programs="decode")
    assert sum(each.bytes for each in found.programs[0].traffic.collectives.values()) < MIB


def test_what_does_not_fit_is_refused_with_numbers(ask: Answers) -> None:
    found = ask("v5e-1", slots=512, programs="decode")
    (refusal,) = found.refusals
    assert not found.fits and not found.programs
    assert refusal.needed is not None and refusal.available is not None
    assert refusal.needed > refusal.available == int(15.75 * 2**30)
    # Weights and cache of two layers, as the engine counts them.
    counted = found.planned["weights"] + found.planned["cache"]
    assert counted * 0.98 < refusal.needed


def test_a_model_that_cannot_be_split_evenly_says_what_stays_whole(ask: Answers) -> None:
    spec = tiny_spec("llama", **{**WIDE, "layers": 1, "kv_heads": 4, "heads": 4, "hidden": 512})
    found = ask("v5e-8", spec, slots=8, cache_length=256, programs="decode")
    assert any("kv_heads 4" in notice for notice in found.notices)
