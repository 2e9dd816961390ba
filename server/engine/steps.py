"""The programs that run on the device, as pure functions: prefill, decode, release.

Each step's output is int32 [3, rows]: the token, the bits of its log-probability, and an outcome.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32

from server.engine.sampling import Settings, sample
from server.engine.state import SlotState, unpack
from server.models.decoder import Batch, Cache, forward, logits
from server.models.operations import Operations
from server.models.parameters import Parameters
from server.models.spec import ModelSpec

NOTHING, GOES_ON, STOPPED, FULL = range(4)  # outcomes: no token; a token; the last: eos, max_tokens


@dataclass(frozen=True)
class Steps:
    """What the programs are made for."""

    spec: ModelSpec
    operations: Operations
    eos_ids: tuple[int, ...]

    def decode(
        self, parameters: Parameters, cache: Cache, state: SlotState, *, span: int, steps: int
    ) -> tuple[Cache, SlotState, Int32[Array, "steps 3 B"]]:
        """`steps` tokens for every active slot."""
        if steps == 1:
            cache, state, out = self._decode_one(parameters, cache, state, span)
            return cache, state, out[None]

        def one(
            carry: tuple[Cache, SlotState], _: None
        ) -> tuple[tuple[Cache, SlotState], jax.Array]:
            cache, state, out = self._decode_one(parameters, *carry, span)
            return (cache, state), out

        (cache, state), outs = lax.scan(one, (cache, state), None, length=steps)
        return cache, state, outs

    def prefill(
        self,
        parameters: Parameters,
        cache: Cache,
        state: SlotState,
        packed: jax.Array,
        *,
        span: int,
    ) -> tuple[Cache, SlotState, Int32[Array, "1 3 N"]]:
        """Reads a chunk a row; rows marked last get their first token and wake their slot."""
        rows = unpack(packed)
        batch = Batch(rows.tokens, rows.starts, rows.lengths, rows.slots)
        hidden, cache = forward(self.spec, self.operations, parameters, cache, batch, span)
        end = jnp.maximum(rows.lengths - 1, 0)
        final = jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0]
        position = rows.starts + rows.lengths
        token, logprob = self._sample(logits(parameters, final), rows.settings, position, rows.last)
        remaining = rows.remaining - 1
        outcome = self._outcome(token, remaining, rows.ignore_eos, rows.last)
        fresh = SlotState(
            token, position, remaining, outcome == GOES_ON, rows.ignore_eos, rows.settings
        )
        # Rows that are not the last of their prompt change nothing: their slot is out of range.
        target = jnp.where(rows.last, rows.slots, state.token.shape[0])
        state = jax.tree.map(lambda old, new: old.at[target].set(new, mode="drop"), state, fresh)
        return cache, state, _output(token, logprob, outcome)[None]

    def release(self, state: SlotState, released: Bool[Array, " B"]) -> SlotState:
        """Puts slots to sleep."""
        return replace(state, active=state.active & ~released)

    def _decode_one(
        self, parameters: Parameters, cache: Cache, state: SlotState, span: int
    ) -> tuple[Cache, SlotState, Int32[Array, "3 B"]]:
        active = state.active.astype(jnp.int32)
        batch = Batch(state.token[:, None], state.position, active, None)
        hidden, cache = forward(self.spec, self.operations, parameters, cache, batch, span)
        position = state.position + active
        token, logprob = self._sample(
            logits(parameters, hidden[:, 0]), state.settings, position, state.active
        )
        remaining = state.remaining - active
        outcome = self._outcome(token, remaining, state.ignore_eos, state.active)
        state = SlotState(
            jnp.where(state.active, token, state.token),
            position,
            remaining,
            outcome == GOES_ON,
            state.ignore_eos,
            state.settings,
        )
        return cache, state, _output(token, logprob, outcome)

    def _sample(
        self, scores: jax.Array, settings: Settings, position: jax.Array, live: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return sample(scores, settings, position, live, self.operations.argmax)

    def _outcome(
        self, token: jax.Array, remaining: jax.Array, ignore_eos: jax.Array, live: jax.Array
    ) -> jax.Array:
        ended = jnp.isin(token, jnp.asarray(self.eos_ids, jnp.int32)) & ~ignore_eos
        outcome = jnp.where(ended, STOPPED, jnp.where(remaining <= 0, FULL, GOES_ON))
        return jnp.where(live, outcome, NOTHING).astype(jnp.int32)


def _output(token: jax.Array, logprob: jax.Array, outcome: jax.Array) -> Int32[Array, "3 N"]:
    return jnp.stack([token, lax.bitcast_convert_type(logprob, jnp.int32), outcome])
