"""Prefill and decode are one forward; nothing around a row changes it."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from server.engine.backend import Backend, cpu_backend
from server.engine.config import EngineConfig
from server.kernels import build
from tests.cache import CACHE
from tests.models.plain import plain_logits
from tests.models.tiny import Model, Row, load, random_tensors, tiny_spec

LENGTH = 32
SPECS = {
    "llama": tiny_spec(),
    "qwen": tiny_spec("qwen2", tied=True, kv_heads=1),
    "gemma": tiny_spec("gemma", tied=True, kv_heads=1, head_dim=32),
    "starcoder2": tiny_spec("starcoder2", sliding_window=32),
    "opt": tiny_spec("opt", kv_heads=4, max_positions=40, tied=True),
    "bloom": tiny_spec("bloom", heads=6, kv_heads=6, ffn=256),
    "many": tiny_spec(heads=8, kv_heads=8, ffn=128),
    "many bloom": tiny_spec("bloom", heads=8, kv_heads=8, ffn=256),
    "many starcoder2": tiny_spec("starcoder2", heads=16, kv_heads=8, ffn=128),
    "uneven": tiny_spec(heads=6, kv_heads=3, ffn=100, vocab=131, hidden=60),
}
# Float32 to rounding; an int8 code may flip where two orders of adding differ, and a flip is 1/127.
BOUND = {False: 2e-4, True: 0.08}
TENSORS = {name: random_tensors(spec) for name, spec in SPECS.items()}
# Every way of storing for one family; the others differ in what is around the products.
STORED = [("llama", weights, int8_kv) for weights in (False, True) for int8_kv in (False, True)]
OTHERS = [(name, False, False) for name in ("gemma", "opt", "starcoder2", "bloom")]
CASES = ("name", "weights", "int8_kv")
EACH = pytest.mark.parametrize(CASES, [*STORED, *OTHERS, ("starcoder2", True, True)])
SOME = pytest.mark.parametrize(CASES, [*STORED, ("bloom", False, False)])


@pytest.fixture(scope="module")
def model() -> Callable[..., Model]:
    """Loads a model of SPECS once for all tests."""
    return cache(lambda name, **settings: load(TENSORS[name], **settings))


def tokens_of(count: int, seed: int = 0, vocab: int = 128) -> list[int]:
    return list(map(int, np.random.RandomState(seed).randint(0, vocab, count)))


def whole(decoder: Model, tokens: list[int]) -> np.ndarray:
    """All tokens in one dispatch."""
    (scores,), _ = decoder.read(decoder.empty(1, LENGTH), [Row(0, 0, tokens)], LENGTH, 0)
    return scores


@EACH
@pytest.mark.parametrize("prompt", [1, 7, 20])
def test_prefill_then_decode_is_one_forward(
    model: Callable, name: str, prompt: int, weights: bool, int8_kv: bool
) -> None:
    decoder = model(name, weights=weights, cache=int8_kv)
    tokens = tokens_of(24)
    expected = whole(decoder, tokens)
    held = decoder.empty(3, LENGTH)
    (scores,), held = decoder.read(held, [Row(1, 0, tokens[:prompt])], LENGTH, 0)
    got = [*scores]
    for position in range(prompt, 24):
        scores, held = decoder.step(
            held, [5, tokens[position], 9], [3, position, 30], [0, 1, 0], LENGTH
        )
        got.append(scores[1])
    assert np.abs(np.stack(got) - expected).max() <= BOUND[weights or int8_kv]


@SOME
def test_chunks_make_no_difference(
    model: Callable, name: str, weights: bool, int8_kv: bool
) -> None:
    decoder = model(name, weights=weights, cache=int8_kv)
    tokens = tokens_of(24)
    expected = whole(decoder, tokens)
    for chunk in (1, 5, 8, 23):
        held, got = decoder.empty(2, LENGTH), []
        for start in range(0, 24, chunk):
            row = Row(1, start, tokens[start : start + chunk])
            (scores,), held = decoder.read(held, [row], LENGTH, LENGTH if start else 0)
            got.append(scores)
        assert np.abs(np.concatenate(got) - expected).max() <= BOUND[weights or int8_kv], chunk


@SOME
def test_nothing_around_a_row_changes_it(
    model: Callable, name: str, weights: bool, int8_kv: bool
) -> None:
    """Padding, padding rows, other rows, the slot and a cache read too far: to the last bit."""
    decoder = model(name, weights=weights, cache=int8_kv)
    tokens, others = tokens_of(9), [tokens_of(n, seed=n) for n in (3, 9)]

    def first(rows: list[Row], width: int, span: int, spare: int) -> np.ndarray:
        scores, _ = decoder.read(decoder.empty(4, LENGTH), rows, width, span, spare)
        return scores[0]

    alone = first([Row(0, 0, tokens)], 16, 0, 3)
    company = [Row(3, 0, others[0]), Row(1, 0, others[1])]
    assert np.array_equal(alone, first([Row(2, 0, tokens)], 16, 0, 3))
    assert np.array_equal(alone, first([Row(2, 0, tokens), *company], 16, 0, 1))
    for width, span, spare in ((9, 0, 0), (32, 0, 0), (16, LENGTH, 1)):
        other = first([Row(2, 0, tokens), *company], width, span, spare)
        assert np.abs(other - alone).max() <= BOUND[weights or int8_kv]


@EACH
def test_other_slots_do_not_change_decode(
    model: Callable, name: str, weights: bool, int8_kv: bool
) -> None:
    decoder = model(name, weights=weights, cache=int8_kv)
    mine, theirs = tokens_of(6), tokens_of(20, seed=3)

    def decoded(active: list[int], span: int) -> np.ndarray:
        held = decoder.empty(3, LENGTH)
        rows = [Row(1, 0, mine), Row(2, 0, theirs)]
        _, held = decoder.read(held, rows, LENGTH, 0)
        scores, held = decoder.step(held, [1, 2, 3], [0, 6, 20], active, span)
        scores, _ = decoder.step(held, [1, 4, 3], [0, 7, 21], active, span)
        return scores[1]

    alone = decoded([0, 1, 0], LENGTH)
    assert np.array_equal(alone, decoded([0, 1, 1], LENGTH))
    assert np.array_equal(alone, decoded([1, 1, 1], LENGTH))
    assert np.abs(alone - decoded([0, 1, 0], 8)).max() <= BOUND[weights]


@pytest.mark.parametrize("name", ["llama", "starcoder2", "opt", "bloom"])
def test_rows_of_one_dispatch_may_differ_in_age(model: Callable, name: str) -> None:
    """A first chunk beside a later one, in slots that held something else before."""
    decoder = model(name)
    old, new, rubbish = tokens_of(20), tokens_of(11, seed=1), tokens_of(32, seed=2)
    held = decoder.empty(4, LENGTH)
    for slot in (0, 2):
        _, held = decoder.read(held, [Row(slot, 0, rubbish)], LENGTH, 0)
    _, held = decoder.read(held, [Row(2, 0, old[:9])], LENGTH, 0)
    scores, _ = decoder.read(held, [Row(2, 9, old[9:]), Row(0, 0, new)], LENGTH, LENGTH, spare=1)
    assert np.abs(scores[0] - whole(decoder, old)[9:]).max() <= BOUND[False]
    assert np.abs(scores[1] - whole(decoder, new)).max() <= BOUND[False]


@pytest.mark.parametrize(
    ("name", "sharding", "weights", "int8_kv"),
    [
        pytest.param("many", "model", False, False, marks=pytest.mark.slow),
        ("many", "model", True, True),
        ("many", "batch", True, True),
        ("uneven", "model", True, True),
        pytest.param("uneven", "batch", False, False, marks=pytest.mark.slow),
        pytest.param("qwen", "model", False, True, marks=pytest.mark.slow),
        ("many bloom", "model", False, False),
        ("many starcoder2", "model", True, True),
        pytest.param("many starcoder2", "batch", False, False, marks=pytest.mark.slow),
        ("opt", "model", False, False),
        ("gemma", "model", True, False),
    ],
)
def test_sharding_makes_no_difference(
    model: Callable, name: str, sharding: str, weights: bool, int8_kv: bool
) -> None:
    """Eight devices against one: prefill of two rows, a later chunk, and decode."""

    def run(devices: int) -> list[np.ndarray]:
        decoder = model(name, weights=weights, cache=int8_kv, devices=devices, sharding=sharding)
        held = decoder.empty(8, LENGTH)
        a, b = tokens_of(20), tokens_of(7, seed=1)
        first, held = decoder.read(held, [Row(6, 0, a[:13]), Row(1, 0, b)], 16, 0)
        later, held = decoder.read(held, [Row(6, 13, a[13:])], 16, LENGTH)
        active = [0, 1, 0, 0, 0, 0, 1, 0]
        one, held = decoder.step(held, [3] * 8, [0, 7, 0, 0, 0, 0, 20, 0], active, LENGTH)
        two, _ = decoder.step(held, [4] * 8, [0, 8, 0, 0, 0, 0, 21, 0], active, LENGTH)
        return [*first, *later, one[[1, 6]], two[[1, 6]]]

    alone, together = run(1), run(8)
    gap = max(np.abs(x - y).max() for x, y in zip(alone, together, strict=True))
    assert gap <= BOUND[weights or int8_kv]


@pytest.mark.parametrize("name", ["llama", "uneven", "gemma", "starcoder2", "opt", "bloom"])
def test_the_kernel_makes_no_difference(model: Callable, name: str) -> None:
    if reason := build.load(CACHE):
        pytest.skip(f"no CPU kernel: {reason}")
    tokens = tokens_of(24)
    for weights in (False, True):
        config = EngineConfig(slots=1, weights="int8" if weights else "none")
        kernel: Backend = cpu_backend(config, kernel=True)
        plain = whole(model(name, weights=weights), tokens)
        assert np.abs(whole(model(name, backend=kernel), tokens) - plain).max() <= 5e-3


@pytest.mark.parametrize("name", SPECS)
def test_a_plain_forward_gives_the_same(model: Callable, name: str) -> None:
    tokens = tokens_of(LENGTH)
    expected = plain_logits(TENSORS[name], tokens)
    assert np.abs(whole(model(name), tokens) - expected).max() <= BOUND[False]


def test_int8_weights_are_near_float(model: Callable) -> None:
    """Random weights are the hard case: every value counts. Correlation, not equality."""
    tokens = tokens_of(LENGTH)
    exact = plain_logits(TENSORS["llama"], tokens)
    rough = whole(model("llama", weights=True, cache=True), tokens)
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.999
