"""What the device knows of each slot between steps, and the one array that carries a prefill."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32

from server.engine.protocol import PrefillChunk
from server.engine.sampling import Settings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SlotState:
    """Per slot: the token to read next, its position, and when to stop."""

    token: Int32[Array, " B"]
    position: Int32[Array, " B"]
    remaining: Int32[Array, " B"]
    active: Bool[Array, " B"]
    ignore_eos: Bool[Array, " B"]
    settings: Settings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PrefillRows:
    """A prefill dispatch as the device reads it, N rows of T tokens."""

    tokens: Int32[Array, "N T"]
    starts: Int32[Array, " N"]
    lengths: Int32[Array, " N"]
    slots: Int32[Array, " N"]
    last: Bool[Array, " N"]
    remaining: Int32[Array, " N"]
    ignore_eos: Bool[Array, " N"]
    settings: Settings


COLUMNS = 12  # of the packed array, before the tokens


def idle(slots: int) -> SlotState:
    """No slot active."""
    zeros = jnp.zeros(slots, jnp.int32)
    none = jnp.zeros(slots, bool)
    settings = Settings(
        temperature=jnp.zeros(slots, jnp.float32),
        top_k=zeros,
        top_p=jnp.ones(slots, jnp.float32),
        seed=jnp.zeros((slots, 2), jnp.uint32),
        logprobs=none,
    )
    return SlotState(zeros, zeros, zeros, none, none, settings)


def pack(chunks: Sequence[PrefillChunk], rows: int, length: int, slots: int) -> np.ndarray:
    """int32 [rows, COLUMNS + length]: one transfer a dispatch. Spare rows name slot `slots`."""
    packed = np.zeros((rows, COLUMNS + length), np.int32)
    packed[:, 2] = slots
    for row, chunk in zip(packed, chunks, strict=False):
        sampling = chunk.sampling
        row[:8] = (
            chunk.start,
            len(chunk.tokens),
            chunk.slot,
            chunk.last,
            chunk.max_tokens,
            chunk.ignore_eos,
            min(sampling.top_k, 2**31 - 1),
            chunk.logprobs,
        )
        floats = (sampling.temperature, sampling.top_p)
        row[8:10] = np.asarray(floats, np.float32).view(np.int32)
        row[10:12] = np.asarray([sampling.seed % 2**64], np.uint64).view(np.int32)
        row[COLUMNS : COLUMNS + len(chunk.tokens)] = chunk.tokens
    return packed


def unpack(packed: Int32[Array, "N C"]) -> PrefillRows:
    """The inverse of `pack`, on the device."""
    floats = lax.bitcast_convert_type(packed[:, 8:10], jnp.float32)
    return PrefillRows(
        tokens=packed[:, COLUMNS:],
        starts=packed[:, 0],
        lengths=packed[:, 1],
        slots=packed[:, 2],
        last=packed[:, 3] != 0,
        remaining=packed[:, 4],
        ignore_eos=packed[:, 5] != 0,
        settings=Settings(
            temperature=floats[:, 0],
            top_k=packed[:, 6],
            top_p=floats[:, 1],
            seed=lax.bitcast_convert_type(packed[:, 10:12], jnp.uint32),
            logprobs=packed[:, 7] != 0,
        ),
    )
