"""The plain forms of attention, each by itself, against NumPy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.attention import decode
from server.attention.prefill import attend_chunk
from server.quant import kv
from server.quant.kv import KV

SIZES = [(2, 3, 16), (1, 1, 64), (4, 1, 16)]  # key/value heads, queries of each, head size
FORMS = {
    "einsum": decode.attend_einsum,
    "reduce": decode.attend_reduce,
}
SLOTS, LENGTH = 5, 40
COUNTS = np.asarray([1, 40, 17, 0, 16], np.int32)


def make(heads: int, size: int, int8: bool) -> KV:
    """A full cache; one vector in it is zero."""
    random = np.random.RandomState(heads)
    k, v = random.standard_normal((2, SLOTS, LENGTH, heads, size)).astype(np.float32)
    k[1, 3], v[1, 5] = 0, 0
    like = kv.empty(SLOTS, heads, LENGTH, size, None if int8 else jnp.float32)
    return jax.tree.map(jnp.asarray, kv.encode(like, jnp.asarray(k), jnp.asarray(v)))


def values(cache: KV) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values as numbers, [B,K,S,H] float64."""
    k, v = np.asarray(cache.k, np.float64), np.asarray(cache.v, np.float64)
    if isinstance(cache, kv.Int8KV):
        k, v = k * np.asarray(cache.k_scale)[..., None], v * np.asarray(cache.v_scale)[..., None]
    return k, v


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("heads", "group", "size"), SIZES)
@pytest.mark.parametrize("name", FORMS)
def test_decode_attention(name: str, heads: int, group: int, size: int, int8: bool) -> None:
    cache = make(heads, size, int8)
    q = np.random.RandomState(9).standard_normal((SLOTS, heads, group, size)).astype(np.float32)
    form: Callable = jax.jit(FORMS[name], static_argnums=3)
    out = np.asarray(form(q, cache, COUNTS, size**-0.5))
    assert np.isfinite(out).all()  # the idle slot too
    k, v = values(cache)
    for slot, count in enumerate(COUNTS):
        if count == 0:
            continue
        scores = np.einsum("KGH,KSH->KGS", q[slot], k[slot, :, :count]) * size**-0.5
        expected = np.einsum("KGS,KSH->KGH", softmax(scores), v[slot, :, :count])
        assert np.abs(out[slot] - expected).max() <= 1e-5


@pytest.mark.parametrize("name", FORMS)
def test_large_scores_do_not_overflow(name: str) -> None:
    cache = make(2, 16, False)
    q = np.full((SLOTS, 2, 2, 16), 1e4, np.float32)
    out = np.asarray(FORMS[name](jnp.asarray(q), cache, jnp.asarray(COUNTS), 1.0))
    k, v = values(cache)
    best = (k[1].sum(-1)).argmax(-1)
    for head in (0, 1):
        assert np.abs(out[1, head, 0] - v[1, head, best[head]]).max() <= 1e-4


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("heads", "group", "size"), SIZES)
def test_chunk_attention(heads: int, group: int, size: int, int8: bool) -> None:
    """Any masks over the old cache and the chunk, each token seeing at least itself."""
    random = np.random.RandomState(1)
    old = make(heads, size, int8)
    rows, tokens = SLOTS, 6
    fresh = random.standard_normal((2, rows, tokens, heads, size)).astype(np.float32)
    chunk = kv.encode(old, jnp.asarray(fresh[0]), jnp.asarray(fresh[1]))
    q = random.standard_normal((rows, tokens, heads, group, size)).astype(np.float32)
    sees_old = random.rand(rows, tokens, LENGTH) < 0.5
    sees_chunk = (random.rand(rows, tokens, tokens) < 0.5) | np.eye(tokens, dtype=bool)
    out = np.asarray(jax.jit(attend_chunk)(q, old, chunk, sees_old, sees_chunk, size**-0.5))
    k, v = (np.concatenate(pair, 2) for pair in zip(values(old), values(chunk), strict=True))
    sees = np.concatenate([sees_old, sees_chunk], -1)
    scores = np.einsum("NTKGH,NKSH->NTKGS", q, k) * size**-0.5
    scores = np.where(sees[:, :, None, None], scores, -np.inf)
    expected = np.einsum("NTKGS,NKSH->NTKGH", softmax(scores), v)
    assert np.abs(out - expected).max() <= 1e-5


def test_large_scores_of_a_chunk_do_not_overflow() -> None:
    cache = make(2, 16, False)
    fresh = jnp.ones((SLOTS, 3, 2, 16))
    chunk = kv.encode(cache, fresh, fresh)
    q = jnp.full((SLOTS, 3, 2, 2, 16), 1e4)
    sees = jnp.ones((SLOTS, 3, LENGTH), bool)
    out = np.asarray(attend_chunk(q, cache, chunk, sees, jnp.zeros((SLOTS, 3, 3), bool), 1.0))
    k, v = values(cache)
    for slot in range(SLOTS):
        for head in (0, 1):
            best = k[slot, head].sum(-1).argmax()
            assert np.abs(out[slot, :, head] - v[slot, head, best]).max() <= 1e-4
