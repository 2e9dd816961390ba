"""The plain forms of attention, each by itself, against NumPy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.attention import decode
from server.attention.prefill import Keys, attend_chunk
from server.attention.rows import Scores
from server.quant import kv
from server.quant.kv import KV

SIZES = [(2, 3, 16), (1, 1, 64), (4, 1, 16)]  # key/value heads, queries of each, head size
FORMS = {
    "einsum": decode.attend_einsum,
    "padded": decode.attend_padded,
    "reduce": decode.attend_reduce,
}
SLOTS, LENGTH = 5, 40
COUNTS = np.asarray([1, 40, 17, 0, 16], np.int32)
ALIBI = pytest.mark.parametrize("alibi", [False, True], ids=["", "alibi"])


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


def make_scores(heads: int, group: int, size: int, alibi: bool) -> Scores:
    slopes = 2.0 ** -np.random.RandomState(4).uniform(0, 8, (heads, group))
    return Scores(size**-0.5, tuple(map(tuple, slopes)) if alibi else None)


def penalty(scores: Scores, back: np.ndarray) -> np.ndarray | float:
    """What [..] positions between query and key cost each head: [K,G,..]."""
    return 0.0 if scores.slopes is None else np.multiply.outer(scores.slopes, back)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("heads", "group", "size"), SIZES)
@pytest.mark.parametrize("name", FORMS)
@ALIBI
def test_decode_attention(
    name: str, heads: int, group: int, size: int, int8: bool, alibi: bool
) -> None:
    scoring = make_scores(heads, group, size, alibi)
    back = np.random.RandomState(6).randint(0, LENGTH, (SLOTS, LENGTH)).astype(np.int32)
    cache = make(heads, size, int8)
    q = np.random.RandomState(9).standard_normal((SLOTS, heads, group, size)).astype(np.float32)
    form: Callable = jax.jit(FORMS[name], static_argnums=4)
    out = np.asarray(form(q, cache, COUNTS, back, scoring))
    assert np.isfinite(out).all()  # the idle slot too
    k, v = values(cache)
    for slot, count in enumerate(COUNTS):
        if count == 0:
            continue
        scores = np.einsum("KGH,KSH->KGS", q[slot], k[slot, :, :count]) * size**-0.5
        scores = scores - penalty(scoring, back[slot, :count])
        expected = np.einsum("KGS,KSH->KGH", softmax(scores), v[slot, :, :count])
        assert np.abs(out[slot] - expected).max() <= 1e-5


@pytest.mark.parametrize("name", FORMS)
def test_large_scores_do_not_overflow(name: str) -> None:
    cache = make(2, 16, False)
    q = np.full((SLOTS, 2, 2, 16), 1e4, np.float32)
    back = jnp.zeros((SLOTS, LENGTH), jnp.int32)
    out = np.asarray(FORMS[name](jnp.asarray(q), cache, jnp.asarray(COUNTS), back, Scores(1.0)))
    k, v = values(cache)
    best = (k[1].sum(-1)).argmax(-1)
    for head in (0, 1):
        assert np.abs(out[1, head, 0] - v[1, head, best[head]]).max() <= 1e-4


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("heads", "group", "size"), SIZES)
@ALIBI
def test_chunk_attention(heads: int, group: int, size: int, int8: bool, alibi: bool) -> None:
    """The old cache and the chunk, keys in any order and some places empty."""
    random = np.random.RandomState(1)
    scoring = make_scores(heads, group, size, alibi)
    old = make(heads, size, int8)
    tokens, window = 6, 25
    fresh = random.standard_normal((2, SLOTS, tokens, heads, size)).astype(np.float32)
    chunk = kv.encode(old, jnp.asarray(fresh[0]), jnp.asarray(fresh[1]))
    q = random.standard_normal((SLOTS, tokens, heads, group, size)).astype(np.float32)
    before = np.stack([random.permutation(LENGTH) for _ in range(SLOTS)]).astype(np.int32)
    before[random.rand(*before.shape) < 0.3] = -1
    at = np.broadcast_to(np.arange(LENGTH, LENGTH + tokens, dtype=np.int32), (SLOTS, tokens))
    parts = [Keys(old, jnp.asarray(before)), Keys(chunk, jnp.asarray(at))]
    run = jax.jit(lambda q, at: attend_chunk(q, at, parts, window, scoring))
    out = np.asarray(run(q, at))
    k, v = (np.concatenate(pair, 2) for pair in zip(values(old), values(chunk), strict=True))
    positions = np.concatenate([before, at], 1)
    for slot, t in np.ndindex(SLOTS, tokens):
        seen = np.flatnonzero((positions[slot] >= 0) & (at[slot, t] >= positions[slot]))
        seen = seen[at[slot, t] - positions[slot, seen] < window]
        scores = np.einsum("KGH,KSH->KGS", q[slot, t], k[slot, :, seen].swapaxes(0, 1))
        scores = scores * size**-0.5 - penalty(scoring, at[slot, t] - positions[slot, seen])
        expected = np.einsum("KGS,SKH->KGH", softmax(scores), v[slot, :, seen])
        assert np.abs(out[slot, t] - expected).max() <= 1e-5


def test_large_scores_of_a_chunk_do_not_overflow() -> None:
    cache = make(2, 16, False)
    fresh = jnp.ones((SLOTS, 3, 2, 16))
    chunk = kv.encode(cache, fresh, fresh)
    q = jnp.full((SLOTS, 3, 2, 2, 16), 1e4)
    before = jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), (SLOTS, LENGTH))
    nothing = jnp.full((SLOTS, 3), -1, jnp.int32)
    parts = [Keys(cache, before), Keys(chunk, nothing)]
    at = jnp.full((SLOTS, 3), LENGTH, jnp.int32)
    out = np.asarray(attend_chunk(q, at, parts, LENGTH + 1, Scores(1.0)))
    k, v = values(cache)
    for slot in range(SLOTS):
        for head in (0, 1):
            best = k[slot, head].sum(-1).argmax()
            assert np.abs(out[slot, :, head] - v[slot, head, best]).max() <= 1e-4
