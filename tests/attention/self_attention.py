"""Rows of tokens that attend to themselves: inputs, and what should come out, in NumPy."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from server.attention.rows import Attention, Rows, Scores
from server.quant.kv import NoKV
from tests.attention.test_attention_rows import turn


@dataclass(frozen=True)
class Problem:
    """Random rows of different lengths, `tokens` places each."""

    lengths: tuple[int, ...]
    tokens: int
    heads: int
    group: int
    head: int
    window: int
    alibi: bool = False
    compute: str = "float32"

    @property
    def scores(self) -> Scores:
        """Scale, and slopes as ALiBi's are: from near 1 down to 2^-8."""
        slopes = 2.0 ** -np.random.default_rng(7).uniform(0, 8, (self.heads, self.group))
        return Scores(self.head**-0.5, tuple(map(tuple, slopes)) if self.alibi else None)

    def qkv(self) -> np.ndarray:
        """[N,T,K,G+2,H] in the compute type."""
        shape = (len(self.lengths), self.tokens, self.heads, self.group + 2, self.head)
        values = np.random.default_rng(self.tokens).standard_normal(shape)
        return values.astype(self._type)

    def angles(self) -> np.ndarray:
        """[N,T,H/2]; none with ALiBi."""
        shape = (len(self.lengths), self.tokens, self.head // 2)
        angles = np.random.default_rng(self.head).uniform(0, 6, shape)
        return (angles * (not self.alibi)).astype(np.float32)

    def run(self, form: Attention, qkv: np.ndarray | None = None) -> np.ndarray:
        """[N,T,K,G,H] float32, of other values if they are given; those are not turned."""
        given = self._arguments() if qkv is None else (qkv, *self._arguments(turned=False)[1:])
        return np.asarray(self._compile(form)(*given)).astype(np.float32)

    def temporaries(self, form: Attention) -> int:
        """Bytes of scratch memory of the compiled program."""
        return self._compile(form).memory_analysis().temp_size_in_bytes

    def _arguments(self, turned: bool = True) -> tuple[np.ndarray, ...]:
        angles, lengths = self.angles() * np.float32(turned), np.asarray(self.lengths, np.int32)
        return self.qkv(), np.cos(angles), np.sin(angles), lengths

    def _compile(self, form: Attention) -> Any:
        def attend(qkv, cos, sin, lengths):
            starts, slots = jnp.zeros_like(lengths), jnp.arange(len(self.lengths))
            rows = Rows(starts, lengths, slots, cos, sin)
            return form(rows, self.window, 0, self.scores)(qkv, NoKV(self.window))[0]

        return jax.jit(attend).lower(*self._arguments()).compile()

    def expected(self) -> np.ndarray:
        """The same, token by token in double precision; zero where there is no token."""
        qkv, angles = self.qkv(), self.angles()
        q = self._turned(qkv[..., : self.group, :], angles)
        k = self._turned(qkv[..., self.group : self.group + 1, :], angles)[..., 0, :]
        v = qkv[..., -1, :].astype(np.float64)
        out = np.zeros((*q.shape[:-1], self.head))
        for n, length in enumerate(self.lengths):
            for t in range(length):
                first = max(0, t - self.window + 1)
                scores = np.einsum("KGH,SKH->KGS", q[n, t], k[n, first : t + 1])
                scores = scores * self.scores.scale
                if self.alibi:
                    scores = scores - np.multiply.outer(
                        self.scores.slopes, t - np.arange(first, t + 1)
                    )
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights = weights / weights.sum(-1, keepdims=True)
                out[n, t] = np.einsum("KGS,SKH->KGH", weights, v[n, first : t + 1])
        return out

    @property
    def _type(self) -> np.dtype:
        return np.dtype(ml_dtypes.bfloat16 if self.compute == "bfloat16" else self.compute)

    def _turned(self, x: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """[N,T,..,H] turned, rounded as the compute type holds it."""
        turned = turn(x.astype(np.float32), angles[:, :, None, None])
        return turned.astype(self._type).astype(np.float64)
