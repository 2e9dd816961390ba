"""Prefill and decode are one forward; nothing around a row changes it."""

import numpy as np
import pytest

from server.engine.backend import Backend, cpu_backend
from server.engine.config import EngineConfig
from server.quant import cpu_kernel
from tests.models.plain import plain_logits
from tests.models.tiny import Model, Row, Tensors, load, random_tensors, tiny_spec

LENGTH = 32
SPECS = {
    "llama": tiny_spec(),
    "qwen": tiny_spec(family="qwen2", qkv_bias=True, tied=True, kv_heads=1),
    "many": tiny_spec(heads=8, kv_heads=8, ffn=128),
    "uneven": tiny_spec(heads=6, kv_heads=3, ffn=100, vocab=131, hidden=60),
}
# Float32 to rounding; an int8 code may flip where two orders of adding differ, and a flip is 1/127.
BOUND = {False: 2e-4, True: 0.08}
INT8 = pytest.mark.parametrize(
    ("weights", "cache"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["float", "int8-kv", "int8-weights", "int8"],
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensors]:
    return {name: random_tensors(spec) for name, spec in SPECS.items()}


def tokens_of(count: int, seed: int = 0, vocab: int = 128) -> list[int]:
    return list(map(int, np.random.RandomState(seed).randint(0, vocab, count)))


def whole(model: Model, tokens: list[int]) -> np.ndarray:
    """All tokens in one dispatch."""
    (scores,), _ = model.read(model.empty(1, LENGTH), [Row(0, 0, tokens)], LENGTH, 0)
    return scores


@INT8
@pytest.mark.parametrize("name", ["llama", "qwen"])
@pytest.mark.parametrize("prompt", [1, 7, 20])
def test_prefill_then_decode_is_one_forward(
    tensors: dict, name: str, prompt: int, weights: bool, cache: bool
) -> None:
    model = load(tensors[name], weights=weights, cache=cache)
    tokens = tokens_of(24)
    expected = whole(model, tokens)
    held = model.empty(3, LENGTH)
    (scores,), held = model.read(held, [Row(1, 0, tokens[:prompt])], LENGTH, 0)
    got = [*scores]
    for position in range(prompt, 24):
        scores, held = model.step(
            held, [5, tokens[position], 9], [3, position, 30], [0, 1, 0], LENGTH
        )
        got.append(scores[1])
    assert np.abs(np.stack(got) - expected).max() <= BOUND[weights or cache]


@INT8
def test_chunks_make_no_difference(tensors: dict, weights: bool, cache: bool) -> None:
    model = load(tensors["llama"], weights=weights, cache=cache)
    tokens = tokens_of(24)
    expected = whole(model, tokens)
    for chunk in (1, 5, 8, 23):
        held, got = model.empty(2, LENGTH), []
        for start in range(0, 24, chunk):
            row = Row(1, start, tokens[start : start + chunk])
            (scores,), held = model.read(held, [row], LENGTH, LENGTH if start else 0)
            got.append(scores)
        assert np.abs(np.concatenate(got) - expected).max() <= BOUND[weights or cache], chunk


@INT8
def test_a_row_is_itself_whatever_is_around_it(tensors: dict, weights: bool, cache: bool) -> None:
    """Padding, padding rows, other rows, the slot and a cache read too far: to the last bit."""
    model = load(tensors["llama"], weights=weights, cache=cache)
    tokens, others = tokens_of(9), [tokens_of(n, seed=n) for n in (3, 16)]

    def first(rows: list[Row], width: int, span: int, spare: int) -> np.ndarray:
        scores, _ = model.read(model.empty(4, LENGTH), rows, width, span, spare)
        return scores[0]

    alone = first([Row(0, 0, tokens)], 16, 0, 3)
    company = [Row(3, 0, others[0]), Row(1, 0, others[1])]
    assert np.array_equal(alone, first([Row(2, 0, tokens)], 16, 0, 3))
    assert np.array_equal(alone, first([Row(2, 0, tokens), *company], 16, 0, 1))
    for width, span, spare in ((9, 0, 0), (32, 0, 0), (16, LENGTH, 1)):
        other = first([Row(2, 0, tokens), *company], width, span, spare)
        assert np.abs(other - alone).max() <= BOUND[weights or cache]


@INT8
def test_decode_is_the_same_beside_other_slots(tensors: dict, weights: bool, cache: bool) -> None:
    model = load(tensors["llama"], weights=weights, cache=cache)
    mine, theirs = tokens_of(6), tokens_of(20, seed=3)

    def decoded(active: list[int], span: int) -> np.ndarray:
        held = model.empty(3, LENGTH)
        rows = [Row(1, 0, mine), Row(2, 0, theirs)]
        _, held = model.read(held, rows, LENGTH, 0)
        scores, held = model.step(held, [1, 2, 3], [0, 6, 20], active, span)
        scores, _ = model.step(held, [1, 4, 3], [0, 7, 21], active, span)
        return scores[1]

    alone = decoded([0, 1, 0], LENGTH)
    assert np.array_equal(alone, decoded([0, 1, 1], LENGTH))
    assert np.array_equal(alone, decoded([1, 1, 1], LENGTH))
    assert np.abs(alone - decoded([0, 1, 0], 8)).max() <= 2e-4


def test_rows_of_one_dispatch_may_differ_in_age(tensors: dict) -> None:
    """A first chunk beside a later one, in slots that held something else before."""
    model = load(tensors["llama"])
    old, new, rubbish = tokens_of(20), tokens_of(11, seed=1), tokens_of(32, seed=2)
    held = model.empty(4, LENGTH)
    for slot in (0, 2):
        _, held = model.read(held, [Row(slot, 0, rubbish)], LENGTH, 0)
    _, held = model.read(held, [Row(2, 0, old[:9])], LENGTH, 0)
    scores, _ = model.read(held, [Row(2, 9, old[9:]), Row(0, 0, new)], LENGTH, LENGTH, spare=1)
    assert np.abs(scores[0] - whole(model, old)[9:]).max() <= BOUND[False]
    assert np.abs(scores[1] - whole(model, new)).max() <= BOUND[False]


@INT8
@pytest.mark.parametrize("sharding", ["model", "batch"])
@pytest.mark.parametrize("name", ["many", "uneven", "qwen"])
def test_sharding_makes_no_difference(
    tensors: dict, name: str, sharding: str, weights: bool, cache: bool
) -> None:
    """Eight devices against one: prefill of two rows, a later chunk, and decode."""

    def run(devices: int) -> list[np.ndarray]:
        model = load(
            tensors[name], weights=weights, cache=cache, devices=devices, sharding=sharding
        )
        held = model.empty(8, LENGTH)
        a, b = tokens_of(20), tokens_of(7, seed=1)
        first, held = model.read(held, [Row(6, 0, a[:13]), Row(1, 0, b)], 16, 0)
        later, held = model.read(held, [Row(6, 13, a[13:])], 16, LENGTH)
        active = [0, 1, 0, 0, 0, 0, 1, 0]
        one, held = model.step(held, [3] * 8, [0, 7, 0, 0, 0, 0, 20, 0], active, LENGTH)
        two, _ = model.step(held, [4] * 8, [0, 8, 0, 0, 0, 0, 21, 0], active, LENGTH)
        return [*first, *later, one[[1, 6]], two[[1, 6]]]

    alone, together = run(1), run(8)
    gap = max(np.abs(x - y).max() for x, y in zip(alone, together, strict=True))
    assert gap <= BOUND[weights or cache]


@pytest.mark.parametrize("name", ["llama", "uneven"])
def test_the_kernel_makes_no_difference(tensors: dict, name: str) -> None:
    if reason := cpu_kernel.load(None):
        pytest.skip(f"no CPU kernel: {reason}")
    tokens = tokens_of(24)
    for weights in (False, True):
        config = EngineConfig(slots=1, quantize_weights=weights)
        kernel: Backend = cpu_backend(config, kernel=True)
        plain = whole(load(tensors[name], weights=weights), tokens)
        assert np.abs(whole(load(tensors[name], backend=kernel), tokens) - plain).max() <= 5e-3


@pytest.mark.parametrize("name", SPECS)
def test_a_plain_forward_gives_the_same(tensors: dict, name: str) -> None:
    tokens = tokens_of(LENGTH)
    expected = plain_logits(tensors[name], tokens)
    assert np.abs(whole(load(tensors[name]), tokens) - expected).max() <= BOUND[False]


def test_int8_weights_are_near_float(tensors: dict) -> None:
    """Random weights are the hard case: every value counts. Correlation, not equality."""
    tokens = tokens_of(LENGTH)
    exact = plain_logits(tensors["llama"], tokens)
    rough = whole(load(tensors["llama"], weights=True, cache=True), tokens)
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.999
