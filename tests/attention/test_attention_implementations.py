"""Every implementation of attention without a cache, against NumPy."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.attention.blockwise import attend_blocks
from server.attention.choice import IMPLEMENTED, ORDER
from server.attention.rows import Attention
from server.attention.splash import SplashAttention
from server.attention.split import SplitAttention
from server.attention.uncached import (
    SelfAttention,
    SelfChunk,
    UncachedAttention,
    attend_in_kernel,
    reference,
)
from server.engine.mesh import make_mesh
from server.kernels import build
from tests.attention.self_attention import Problem
from tests.cache import CACHE

SMALL_BLOCKS = SelfChunk(partial(attend_blocks, queries=16, keys=24))
# Rows of lengths that no block divides, one as long as a block of splash, one idle.
ROWS = (130, 0, 1, 77, 128)
PROBLEMS = {
    "grouped": Problem(ROWS, 130, 2, 3, 16, window=130),
    "window within a block": Problem(ROWS, 130, 1, 2, 64, window=5),
    "window over blocks": Problem(ROWS, 130, 1, 2, 64, window=100),
    "large head": Problem(ROWS, 130, 1, 1, 128, window=130),
    "odd head": Problem((33, 40), 40, 2, 2, 80, window=40),
    "one token": Problem((1, 1), 1, 2, 2, 16, window=1),
    "alibi": Problem(ROWS, 130, 3, 1, 32, window=130, alibi=True),
    "alibi in a window": Problem(ROWS, 130, 2, 3, 16, window=30, alibi=True),
    "bfloat16": Problem(ROWS, 130, 2, 2, 64, window=130, compute="bfloat16"),
    "alibi in bfloat16": Problem(ROWS, 130, 2, 2, 64, window=130, alibi=True, compute="bfloat16"),
}
# bfloat16 keeps 8 bits: a weight is off by up to 2^-9 of itself, and so is what comes out; values
# are below 4.5.
BOUND = {"float32": 2e-5, "bfloat16": 2 * 2**-9 * 4.5}
SLOW_TO_COMPILE = ("grouped", "window within a block", "bfloat16")


def make(name: str, problem: Problem, key: str) -> Attention:
    """The implementation, or a skip that says why it cannot run here."""
    if name == "reference":
        return reference
    if name == "blockwise":
        if problem.compute != "float32":
            pytest.skip("in a loop XLA cannot multiply bfloat16 on CPUs: see the test for GPUs")
        return UncachedAttention(SMALL_BLOCKS)
    if name == "cpu-kernel":
        if problem.compute != "float32":
            pytest.skip("CPUs compute in float32")
        if reason := build.load(CACHE):
            pytest.skip(f"no CPU kernel: {reason}")
        return attend_in_kernel
    if name == "splash":
        if problem.alibi:
            pytest.skip("splash has no ALiBi")
        if key not in SLOW_TO_COMPILE:
            pytest.skip("interpreted, splash takes seconds a case: a few stand for all")
        return split(SplashAttention(interpret=True))
    assert name == "cudnn", f"no parity test for {name}"
    pytest.skip("cuDNN needs a GPU: tests/attention/test_attention_gpu.py")


def split(form: SelfAttention, devices: int = 1, sharding: str = "model") -> UncachedAttention:
    return UncachedAttention(SplitAttention(form, make_mesh(jax.devices()[:devices], sharding)))


@pytest.mark.parametrize("key", PROBLEMS)
@pytest.mark.parametrize("name", IMPLEMENTED)
def test_parity(name: str, key: str) -> None:
    problem = PROBLEMS[key]
    out = problem.run(make(name, problem, key))
    assert np.abs(out - problem.expected()).max() <= BOUND[problem.compute]


def test_all_that_may_be_chosen_is_tested() -> None:
    assert {name for order in ORDER.values() for name in order} == set(IMPLEMENTED)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_size_in_the_kernel(data: st.DataObject) -> None:
    if reason := build.load(CACHE):
        pytest.skip(f"no CPU kernel: {reason}")
    problem = draw(data, st.sampled_from([16, 48, 64]))
    assert np.abs(problem.run(attend_in_kernel) - problem.expected()).max() <= BOUND["float32"]


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_size_in_blocks(data: st.DataObject) -> None:
    problem = draw(data, st.sampled_from([2, 16]))
    sizes = {name: data.draw(st.integers(1, 40), name) for name in ("queries", "keys")}
    form = UncachedAttention(SelfChunk(partial(attend_blocks, **sizes)))
    assert np.abs(problem.run(form) - problem.expected()).max() <= BOUND["float32"]


def draw(data: st.DataObject, heads: st.SearchStrategy[int]) -> Problem:
    tokens = data.draw(st.integers(1, 150), "tokens")
    return Problem(
        lengths=tuple(data.draw(st.lists(st.integers(0, tokens), min_size=1, max_size=3), "rows")),
        tokens=tokens,
        heads=data.draw(st.integers(1, 3), "key/value heads"),
        group=data.draw(st.integers(1, 3), "group"),
        head=data.draw(heads, "head size"),
        window=data.draw(st.integers(1, tokens), "window"),
        alibi=data.draw(st.booleans(), "alibi"),
    )


@pytest.mark.parametrize(("devices", "sharding"), [(2, "model"), (2, "batch"), (8, "model")])
def test_what_xla_cannot_split_runs_on_each_device(devices: int, sharding: str) -> None:
    """Two key/value heads and five rows: over two devices both, heads or neither is split."""
    problem = PROBLEMS["grouped"]
    out = problem.run(split(SMALL_BLOCKS, devices, sharding))
    assert np.abs(out - problem.expected()).max() <= BOUND["float32"]


@pytest.mark.parametrize("name", ["reference", "blockwise", "cpu-kernel"])
@pytest.mark.parametrize("factor", [1e4, -1e4])
def test_scores_far_apart(name: str, factor: float) -> None:
    """All the weight lies on one key; nothing overflows and no block is forgotten."""
    problem = Problem((100,), 100, 1, 1, 16, window=100)
    qkv = np.ones((1, 100, 1, 3, 16), np.float32)
    qkv[:, :, 0, 1] *= factor * np.linspace(-1, 1, 100)[None, :, None]
    qkv[:, :, 0, 2] += np.arange(100)[None, :, None]
    out = problem.run(make(name, problem, ""), qkv)[0, :, 0, 0, 0]
    expected = np.arange(1, 101) if factor > 0 else np.ones(100)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["reference", "blockwise", "cpu-kernel"])
def test_memory(name: str) -> None:
    """Four times the context: all but the reference take four times the memory and no more."""
    form = make(name, PROBLEMS["grouped"], "")

    def needed(tokens: int) -> int:
        return Problem((tokens,), tokens, 2, 2, 16, window=tokens).temporaries(form)

    short, long = needed(512), needed(2048)
    if name == "reference":
        assert long > 10 * short
    else:
        assert long < 4.5 * short
