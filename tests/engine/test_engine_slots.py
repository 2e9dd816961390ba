"""Slots used again, released, and filled while others decode: nothing leaks.

The cache has two spans (128 and 256 positions), so that a span chosen from stale positions shows.
"""

from collections import defaultdict
from collections.abc import Callable

import jax
import pytest

from server.engine.engine import JaxEngine
from server.engine.protocol import Finish, PrefillChunk, Sampling
from server.kernels import build
from tests.cache import CACHE
from tests.engine.driving import (
    Ask,
    Said,
    assert_greedy,
    collect,
    finish,
    generate,
    ids,
    prefill,
    prompt_of,
)
from tests.models.tiny import Tensors

LENGTH, CHUNK = 256, 64
WILD = Sampling(temperature=3.0, top_k=50, top_p=0.99, seed=7)
LONG = Ask(0, prompt_of(200, 1), 12)
SHORT = Ask(0, prompt_of(9, 2), 12)


@pytest.fixture(params=[1, 2], ids=["one device", "two devices"])
def engine(request: pytest.FixtureRequest, engines: Callable) -> JaxEngine:
    """On one device the CPU kernel may read what lives and need no spans; on two it never does."""
    more = {"devices": 2, "sharding": "batch"} if request.param == 2 else {}
    return engines(cache_length=LENGTH, chunk=CHUNK, **more)


@pytest.fixture
def source(tensors: dict[str, Tensors]) -> Tensors:
    return tensors["llama"]


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_slot_used_again_after_finishing(engine: JaxEngine, source: Tensors, ahead: int) -> None:
    generate(engine, [Ask(0, LONG.prompt, 12, WILD)], ahead=ahead)
    for ask in (SHORT, LONG, SHORT):
        assert_greedy(source, ask, generate(engine, [ask], ahead=ahead)[0], LENGTH)


def test_a_slot_used_again_after_release(engine: JaxEngine, source: Tensors) -> None:
    """In the middle of decoding, and in the middle of the prompt."""
    said: Said = defaultdict(list)
    prefill(engine, [Ask(0, LONG.prompt, 100, WILD)], said)
    collect(said, engine.decode(), engine.decode())
    engine.release(0)
    assert engine.decode().tokens() == []
    assert_greedy(source, SHORT, generate(engine, [SHORT])[0], LENGTH)
    for chunk in LONG.chunks(CHUNK)[:2]:
        assert engine.prefill([chunk]).tokens() == []
    engine.release(0)
    assert_greedy(source, SHORT, generate(engine, [SHORT])[0], LENGTH)


def test_a_prompt_without_logprobs_after_one_with(engine: JaxEngine) -> None:
    with_them = generate(engine, [SHORT])[0]
    without = generate(engine, [Ask(0, SHORT.prompt, 12, logprobs=False)])[0]
    assert all(token.logprob is not None for token in with_them)
    assert all(token.logprob is None for token in without)
    assert ids(with_them) == ids(without)


def test_a_long_row_ends_or_goes_while_a_short_one_stays(
    engine: JaxEngine, source: Tensors
) -> None:
    """The span shrinks and grows again under a row that decodes all the time."""
    steady = Ask(1, prompt_of(100, 3), 60)  # crosses 128 on its way
    said: Said = defaultdict(list)
    prefill(engine, [steady], said)
    prefill(engine, [Ask(0, LONG.prompt, 4)], said)
    finish(engine, said, [0], ahead=1)
    prefill(engine, [Ask(2, LONG.prompt, 100)], said)
    collect(said, engine.decode())
    engine.release(2)
    finish(engine, said, [1], ahead=1)
    assert_greedy(source, steady, said[1], LENGTH)
    assert_greedy(source, Ask(0, LONG.prompt, 4), said[0], LENGTH)


def test_a_short_row_goes_while_a_long_one_stays(engine: JaxEngine, source: Tensors) -> None:
    said: Said = defaultdict(list)
    prefill(engine, [LONG, Ask(1, SHORT.prompt, 100, WILD)], said)
    collect(said, engine.decode())
    engine.release(1)
    prefill(engine, [Ask(1, SHORT.prompt, 3, WILD)], said)
    finish(engine, said, [0, 1])
    assert_greedy(source, LONG, said[0], LENGTH)


def test_prompts_are_read_between_decode_steps_of_others(
    engine: JaxEngine, source: Tensors
) -> None:
    """Neither the slot that is being filled nor those that decode feel it."""
    running, arriving = Ask(2, prompt_of(30, 4), 20), Ask(0, LONG.prompt, 8)
    said: Said = defaultdict(list)
    prefill(engine, [Ask(0, prompt_of(250, 5), 3, WILD)], said)  # leaves rubbish behind
    finish(engine, said, [0])
    said.clear()
    prefill(engine, [running], said)
    for chunk in arriving.chunks(23):
        flight = [engine.decode(), engine.prefill([chunk]), engine.decode()]
        collect(said, *flight)
        assert chunk.last or 0 not in said
    finish(engine, said, [0, 2])
    assert_greedy(source, running, said[2], LENGTH)
    assert_greedy(source, arriving, said[0], LENGTH)


@pytest.mark.parametrize("ends", [True, False], ids=["ending", "going on"])
def test_a_step_in_flight_over_release_and_prefill(
    engine: JaxEngine, source: Tensors, ends: bool
) -> None:
    """Tokens of the old request come late; its end must not put the new one to sleep."""
    said: Said = defaultdict(list)
    prefill(engine, [Ask(0, SHORT.prompt, 2 if ends else 9, WILD)], said)
    late = engine.decode()
    engine.release(0)
    first, *rest = LONG.chunks(CHUNK)
    flight = [engine.prefill([first])]
    flight += [engine.prefill([chunk]) for chunk in rest]
    old = late.tokens()
    assert [token.slot for token in old] == [0]
    assert (old[0].finish is Finish.LENGTH) is ends
    said.clear()
    collect(said, *flight)
    finish(engine, said, [0], ahead=1)
    assert_greedy(source, LONG, said[0], LENGTH)


def test_a_slot_filled_again_before_its_last_tokens_are_read(
    engine: JaxEngine, source: Tensors
) -> None:
    """Released in the host's view only after the device had finished it by itself."""
    said: Said = defaultdict(list)
    prefill(engine, [Ask(0, SHORT.prompt, 2)], said)
    late = [engine.decode(), engine.decode()]
    engine.release(0)
    flight = [engine.prefill([chunk]) for chunk in LONG.chunks(CHUNK)]
    assert [len(step.tokens()) for step in late] == [1, 0]
    said.clear()
    collect(said, *flight)
    finish(engine, said, [0])
    assert_greedy(source, LONG, said[0], LENGTH)


def test_releasing_an_idle_slot_does_nothing(engine: JaxEngine, source: Tensors) -> None:
    said: Said = defaultdict(list)
    prefill(engine, [SHORT], said)
    for slot in (1, 2, 3):
        engine.release(slot)
    finish(engine, said, [0])
    engine.release(0)
    assert_greedy(source, SHORT, said[0], LENGTH)
    assert engine.decode().tokens() == []


def test_chunks_of_several_prompts_in_one_dispatch(engines: Callable, source: Tensors) -> None:
    """A first chunk, a middle one and a last one together."""
    engine = engines(cache_length=LENGTH, chunk=4 * CHUNK)
    asks = [Ask(3, LONG.prompt, 5), Ask(1, prompt_of(100, 6), 5), Ask(2, SHORT.prompt, 5)]
    long, middle, short = (ask.chunks(50) for ask in asks)
    said: Said = defaultdict(list)
    rows: list[list[PrefillChunk]] = [
        [long[0]],
        [long[1], middle[0]],
        [short[0], middle[1], long[2]],
        [long[3]],
    ]
    for row in rows:
        collect(said, engine.prefill(row))
    finish(engine, said, [1, 2, 3])
    for ask in asks:
        assert_greedy(source, ask, said[ask.slot], LENGTH)


class Recorder(dict):
    """Programs, and the keys that were asked for."""

    def __init__(self, programs: dict) -> None:
        super().__init__(programs)
        self.asked: list[tuple] = []

    def __getitem__(self, key: tuple) -> object:
        self.asked.append(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("way", ["finish", "release"])
def test_a_long_row_that_left_is_read_no_further(
    engine: JaxEngine, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Decode reads as far as the rows at work need, not those before them."""
    spans = engine._plan.spans
    said: Said = defaultdict(list)
    prefill(engine, [Ask(0, LONG.prompt, 2 if way == "finish" else 50)], said)
    collect(said, engine.decode())
    if way == "release":
        engine.release(0)
    programs = Recorder(engine.programs)
    monkeypatch.setattr(engine, "programs", programs)
    said.clear()
    generate(engine, [Ask(1, SHORT.prompt, 3)])
    used = [key for key in programs.asked if key[0] == "decode"]
    assert used == [("decode", spans[0])] * 2


@pytest.mark.parametrize("int8", [False, True])
def test_the_kernel_writes_the_cache_where_it_lies(engines: Callable, int8: bool) -> None:
    """No step copies a cache: each array stays where it was."""
    engine = engines(cache_length=LENGTH, chunk=CHUNK, quantize_kv_cache=int8)
    if not engine._plan.backend.reads_live:
        pytest.skip(f"only the CPU kernel writes in place, and there is none: {build.load(CACHE)}")

    def places() -> list[int]:
        return [array.unsafe_buffer_pointer() for array in jax.tree.leaves(engine._cache)]

    before = places()
    said: Said = defaultdict(list)
    prefill(engine, [Ask(1, prompt_of(2 * CHUNK + 5, 6), 9)], said)
    assert places() == before
    finish(engine, said, [1])
    assert places() == before


def test_more_chunks_than_a_dispatch_takes_are_refused(engine: JaxEngine) -> None:
    chunks = [PrefillChunk(slot, prompt_of(CHUNK, slot), 0, True) for slot in range(2)]
    with pytest.raises(ValueError, match=f"2 chunks of up to {CHUNK} tokens; at most 1"):
        engine.prefill(chunks)
    with pytest.raises(ValueError, match="a chunk of 500 tokens"):
        engine.prefill([PrefillChunk(0, prompt_of(500), 0, True)])
    assert engine.decode().tokens() == []
