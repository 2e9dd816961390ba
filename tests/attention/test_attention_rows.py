"""Whole requests through every form of attention, against a NumPy history of each slot."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.attention.blockwise import attend_blocks
from server.attention.decode import attend_einsum, attend_reduce
from server.attention.kernel import attend_in_kernel
from server.attention.plain import PlainAttention
from server.attention.rows import Attention, Rows, Scores
from server.attention.uncached import SelfChunk, UncachedAttention
from server.kernels import build
from server.quant import kv
from tests.cache import CACHE
from tests.dealt import dealt

SLOTS = 4
SCALE = 0.3
IN_BLOCKS = partial(attend_blocks, queries=16, keys=24)
FORMS: dict[str, Attention] = {
    "einsum": PlainAttention(attend_einsum),
    "reduce": PlainAttention(attend_reduce),
    "blocks": PlainAttention(attend_einsum, IN_BLOCKS),
    "first chunks apart": PlainAttention(
        attend_einsum, alone=UncachedAttention(SelfChunk(IN_BLOCKS))
    ),
    "kernel": attend_in_kernel,
}
INT8 = pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
# K, G, H, and whether with ALiBi.
SIZES = [
    (2, 3, 16, False),
    (1, 1, 64, True),
    (3, 8, 80, False),
    (1, 5, 256, True),
    (2, 4, 128, False),
    (2, 3, 16, True),
]
# The C code has a branch for each; the other has no int8 half to be dealt.
WHOLE = ("kernel", "first chunks apart")
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Row:
    """Tokens to read for a slot."""

    slot: int
    start: int
    count: int


class Rig:
    """A cache, one form of attention on it, and what each slot should remember."""

    def __init__(
        self,
        name: str,
        size: tuple[int, int, int, bool],
        length: int,
        int8: bool,
    ) -> None:
        if name == "kernel" and (reason := build.load(CACHE)):
            pytest.skip(f"no CPU kernel: {reason}")
        if name == "first chunks apart" and int8:
            pytest.skip("alone a chunk sees its keys as they came, not as int8 keeps them")
        self.form, self.length = FORMS[name], length
        self.heads, self.group, self.head, alibi = size
        kind = None if int8 else jnp.dtype(jnp.float32)
        self.cache = kv.empty(SLOTS, self.heads, length, self.head, kind)
        self.int8 = int8
        self.reads_live = name == "kernel"
        self.random = np.random.default_rng(length)
        self.slopes = np.zeros((self.heads, self.group))
        if alibi:
            self.slopes = 2.0 ** -self.random.uniform(0, 8, (self.heads, self.group))
        self.scores = Scores(SCALE, tuple(map(tuple, self.slopes)) if alibi else None)
        self.history: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(SLOTS)]
        self.programs = jax.jit(self._run, static_argnames=("decoding", "span"))

    def prefill(self, tokens: int, rows: Sequence[Row], poison: bool = False) -> None:
        """Reads the rows in one call of `tokens` a row, and checks what comes out."""
        span = self.length if any(row.start for row in rows) else 0
        self._read(tokens, rows, np.asarray([row.slot for row in rows], np.int32), span, poison)

    def decode(self, positions: Sequence[int | None]) -> None:
        """One token for every slot that has a position."""
        rows = [Row(slot, at or 0, at is not None) for slot, at in enumerate(positions)]
        self._read(1, rows, None, self.length)

    def _read(
        self,
        tokens: int,
        rows: Sequence[Row],
        slots: np.ndarray | None,
        span: int,
        poison: bool = False,
    ) -> None:
        shape = (len(rows), tokens, self.heads, self.group + 2, self.head)
        qkv = self.random.standard_normal(shape).astype(np.float32)
        if poison and self.reads_live:  # then anything may lie behind the end of a row
            for n, row in enumerate(rows):
                qkv[n, row.count :] = np.nan
        angles = self.random.uniform(0, 6, (len(rows), tokens, self.head // 2)).astype(np.float32)
        starts, lengths = np.asarray([[row.start, row.count] for row in rows], np.int32).T
        out, self.cache = self.programs(
            qkv, np.cos(angles), np.sin(angles), starts, lengths, slots, self.cache,
            decoding=slots is None, span=span,
        )  # fmt: skip
        out = np.asarray(out)
        for n, row in enumerate(rows):
            for t in range(row.count):
                self._remember(row.slot, row.start + t, qkv[n, t], angles[n, t])
            for t in range(row.count):
                q = turn(qkv[n, t, :, : self.group], angles[n, t])
                expected = self._attended(q, row.slot, row.start + t)
                np.testing.assert_allclose(out[n, t], expected, rtol=0, atol=TOLERANCE)
            assert np.all(out[n, row.count :] == 0)

    def _run(self, qkv, cos, sin, starts, lengths, slots, cache, decoding, span):
        rows = Rows(starts, lengths, None if decoding else slots, cos, sin)
        return self.form(rows, self.length, span, self.scores)(qkv, cache)

    def _remember(self, slot: int, at: int, vectors: np.ndarray, angles: np.ndarray) -> None:
        key, value = turn(vectors[:, -2:-1], angles)[:, 0], vectors[:, -1]
        if self.int8:
            key, value = rounded(key), rounded(value)
        del self.history[slot][at:]
        self.history[slot].append((key, value))

    def _attended(self, q: np.ndarray, slot: int, at: int) -> np.ndarray:
        seen = self.history[slot][max(0, at - self.length + 1) : at + 1]
        keys, values = (np.stack(part).astype(np.float64) for part in zip(*seen, strict=True))
        back = np.arange(len(seen))[::-1]  # the newest is the token itself
        scores = np.einsum("KGH,SKH->KGS", q, keys) * SCALE - self.slopes[..., None] * back
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("KGS,SKH->KGH", weights / weights.sum(-1, keepdims=True), values)


def turn(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """[.., H] turned by [H/2], as complex numbers."""
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles.astype(np.float64))
    return np.concatenate([turned.real, turned.imag], -1).astype(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    """What an int8 cache gives back."""
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    return np.rint(x / np.where(scale > 0, scale, 1)) * scale


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    dealt(list(FORMS), SIZES, ["float", "int8"], whole=lambda name, *_: name in WHOLE),
)
def test_requests_beside_each_other(name: str, size: tuple[int, int, int, bool], kind: str) -> None:
    """Prompts short and long, chunks, idle rows, decoding past the window, a slot used again."""
    rig = Rig(name, size, 70, kind == "int8")
    rig.prefill(40, [Row(2, 0, 40), Row(SLOTS, 0, 0), Row(0, 0, 1)], poison=True)
    rig.decode([1, None, 40, None])
    rig.prefill(40, [Row(2, 41, 40), Row(1, 0, 17), Row(SLOTS, 0, 0)])  # wraps
    rig.decode([2, 17, 81, None])
    rig.prefill(40, [Row(2, 82, 33), Row(3, 0, 40), Row(1, 18, 40)])
    for step in range(3):
        rig.decode([3 + step, 58 + step, 115 + step, 40 + step])
    rig.prefill(40, [Row(2, 0, 3), Row(1, 61, 40), Row(0, 6, 2)])  # slot 2 begins anew
    rig.decode([None, 101, 3, 43])


@INT8
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("alibi", [False, True], ids=["", "alibi"])
def test_long_chunks(name: str, int8: bool, alibi: bool) -> None:
    """Longer than the blocks of the kernel, as long as the window, and twice round it."""
    rig = Rig(name, (2, 3, 32, alibi), 200, int8)
    rig.prefill(200, [Row(1, 0, 200), Row(3, 0, 129)], poison=True)
    rig.prefill(200, [Row(1, 200, 150), Row(3, 129, 200)])
    rig.prefill(200, [Row(3, 329, 64), Row(1, 350, 193)], poison=True)
    rig.decode([None, 543, None, 393])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("factor", [1e4, -1e4])
def test_scores_far_apart(name: str, factor: float) -> None:
    """All the weight lies on one key, of the chunk and of the cache; no overflow."""
    rig = Rig(name, (1, 1, 16, False), 130, False)
    ones = np.ones((1, 100, 1, 3, 16), np.float32)
    ones[:, :, 0, 1] *= factor * np.linspace(-1, 1, 100)[None, :, None]
    ones[:, :, 0, 2] += np.arange(100)[None, :, None]
    flat = np.ones((1, 100, 8), np.float32), np.zeros((1, 100, 8), np.float32)
    start, length, slot = (np.asarray([x], np.int32) for x in (0, 100, 1))
    out, cache = rig.programs(ones, *flat, start, length, slot, rig.cache, decoding=False, span=0)
    best = 100 if factor > 0 else 1
    expected = np.arange(1, 101) if factor > 0 else np.ones(100)
    np.testing.assert_allclose(np.asarray(out)[0, :, 0, 0, 0], expected, rtol=1e-6)
    one = np.zeros((SLOTS, 1, 1, 3, 16), np.float32)
    one[:, :, :, 0] = 1
    starts, lengths = np.full(SLOTS, 100, np.int32), np.asarray([0, 1, 0, 0], np.int32)
    turned = np.ones((SLOTS, 1, 8), np.float32), np.zeros((SLOTS, 1, 8), np.float32)
    out, _ = rig.programs(one, *turned, starts, lengths, None, cache, decoding=True, span=130)
    np.testing.assert_allclose(np.asarray(out)[1, 0, 0, 0], best, rtol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_a_bad_value_spoils_its_own_row_and_head(name: str) -> None:
    rig = Rig(name, (2, 2, 16, False), 70, False)
    qkv = np.ones((2, 66, 2, 4, 16), np.float32)
    qkv[0, 65, 1, 2, 3] = np.nan  # a key, in the last block
    turned = np.ones((2, 66, 8), np.float32), np.zeros((2, 66, 8), np.float32)
    starts, lengths, slots = np.zeros(2, np.int32), np.full(2, 66, np.int32), np.arange(2)
    out, cache = rig.programs(
        qkv, *turned, starts, lengths, slots, rig.cache, decoding=False, span=0
    )
    out = np.asarray(out)
    assert np.all(np.isnan(out[0, 65, 1]))
    np.testing.assert_allclose(out[0, :65], 1, rtol=1e-6)
    np.testing.assert_allclose(out[0, 65, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(out[1], 1, rtol=1e-6)
    one, at = np.ones((SLOTS, 1, 2, 4, 16), np.float32), np.full(SLOTS, 66, np.int32)
    turned = np.ones((SLOTS, 1, 8), np.float32), np.zeros((SLOTS, 1, 8), np.float32)
    live = np.asarray([1, 1, 0, 0], np.int32)
    out, _ = rig.programs(one, *turned, at, live, None, cache, decoding=True, span=70)
    out = np.asarray(out)
    assert np.all(np.isnan(out[0, 0, 1]))
    np.testing.assert_allclose(out[0, 0, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(out[1], 1, rtol=1e-6)
