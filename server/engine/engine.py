"""The engine: slots on a device, behind `server.engine.protocol.Engine`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from server.engine import memory, programs
from server.engine import mesh as meshes
from server.engine import state as states
from server.engine.backend import Backend
from server.engine.config import EngineConfig
from server.engine.memory import MemoryPlan
from server.engine.protocol import EngineShape, Finish, PrefillChunk, PrefillSize, Token
from server.engine.reading import Reading
from server.engine.steps import FULL, NOTHING, STOPPED
from server.engine.summary import EngineSummary
from server.models import sizes
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.quant import kv
from server.weights.dummy import dummy_shapes

Report = Callable[[str], None]


@dataclass(frozen=True)
class EnginePlan:
    """Everything about an engine that is known before it holds any memory."""

    model: ModelSpec
    config: EngineConfig
    backend: Backend
    mesh: Mesh
    eos_ids: frozenset[int]

    def __post_init__(self) -> None:
        shared = self.mesh.shape["data"]
        if self.config.slots % shared:
            raise ValueError(
                f"batch size {self.config.slots} does not divide over the {shared} devices of "
                f"batch sharding; use a multiple of {shared}"
            )

    def parameter_shardings(self) -> Parameters:
        """For each leaf of the parameters."""
        return meshes.parameter_shardings(self.model, self.backend.forms, self.mesh)

    @property
    def spans(self) -> tuple[int, ...]:
        """How much of the cache the decode programs read."""
        return self.config.spans[-1:] if self.backend.reads_live else self.config.spans

    @property
    def prefills(self) -> tuple[tuple[PrefillSize, int], ...]:
        """(size, span) of every prefill program: where a program reads its whole span there is one
        for first chunks, which have nothing before them, and one for later chunks."""
        whole = self.config.cache_length
        spans = (whole,) if self.backend.reads_live else (0, whole)
        return tuple((size, span) for size in self.config.prefills for span in spans)

    @property
    def mlp_blocks(self) -> int:
        """As in WeightShapes."""
        return meshes.mlp_blocks(self.model, self.mesh)

    def parameter_shapes(self) -> Parameters:
        """Shapes and types of the parameters, each with its sharding; nothing is allocated."""
        shapes = dummy_shapes(self.model, self.backend.forms, self.backend.compute, self.mlp_blocks)
        return programs.placed(shapes, self.parameter_shardings())

    def memory(self, parameters: Any, config: EngineConfig | None = None) -> MemoryPlan:
        """Bytes per device; `parameters` may be shapes only."""
        config = config or self.config
        cache = jax.eval_shape(lambda: self.empty_cache(config))
        return MemoryPlan(
            weights=memory.tree_bytes(parameters, self.parameter_shardings()),
            cache=memory.tree_bytes(cache, meshes.cache_sharding(self.model, self.mesh)),
            temporaries=memory.estimate_temporaries(
                self.model,
                config,
                np.dtype(self.backend.compute).itemsize,
                self.mesh.shape["model"],
                self.backend.reads_live,
                self.backend.forms.layers.scratch,
                self.backend.blockwise,
            ),
            programs=self._program_bytes(config),
        )

    def _program_bytes(self, config: EngineConfig) -> int:
        if not self.backend.on_host:
            return 0
        plan = replace(self, config=config)
        programs = len(plan.spans) + len(plan.prefills)
        return sizes.program_bytes(self.model, programs) // self.mesh.size

    def empty_cache(self, config: EngineConfig) -> tuple[kv.KV, ...]:
        """Zeros for every layer."""
        model = self.model
        return tuple(
            kv.empty(
                config.slots,
                model.kv_heads,
                config.cache_length,
                model.head_dim,
                self.backend.cache,
            )
            for _ in range(model.layers)
        )


class DeviceStep:
    """Tokens on their way from the device. `slots` and `logprobs` are per row of the output."""

    def __init__(
        self,
        out: jax.Array,
        slots: Sequence[int],
        logprobs: Sequence[bool],
        on_finish: Callable[[int], None],
    ) -> None:
        out.copy_to_host_async()
        self._out = out
        self._slots = slots
        self._logprobs = logprobs
        self._on_finish = on_finish

    def tokens(self) -> list[Token]:
        """Waits for the device."""
        made = []
        for tokens, bits, outcomes in np.asarray(self._out):
            values = bits.view(np.float32)
            for row in np.flatnonzero(outcomes != NOTHING).tolist():
                token = Token(
                    slot=self._slots[row],
                    token_id=int(tokens[row]),
                    logprob=float(values[row]) if self._logprobs[row] else None,
                    finish=_FINISH.get(int(outcomes[row])),
                )
                if token.finish is not None:
                    self._on_finish(token.slot)
                made.append(token)
        return made


_FINISH = {STOPPED: Finish.STOP, FULL: Finish.LENGTH}


class JaxEngine:
    """Implements `protocol.Engine`. Compiles every variant when it is made, none later.

    `programs` holds them: ("prefill", tokens, span), ("decode", span) and ("release",);
    `compile_seconds` is what making them took, or finding them in the compile cache.
    """

    def __init__(
        self, plan: EnginePlan, parameters: Parameters, report: Report = lambda _: None
    ) -> None:
        self._plan = plan
        self._parameters = parameters
        config = plan.config
        self._whole = meshes.whole(plan.mesh)
        started = time.monotonic()
        self.programs = programs.compile_all(plan, report)
        self.compile_seconds = time.monotonic() - started
        # After compiling, which takes memory of its own and gives it back.
        memory.give_back()
        self._cache, self._state = programs.empty(plan)
        self._positions = np.zeros(config.slots, np.int64)  # of the token to be read next
        self._active = np.zeros(config.slots, bool)
        self._uses = [0] * config.slots  # how many requests each slot has had
        self._logprobs = [False] * config.slots
        self._all_slots = range(config.slots)
        self.shape = EngineShape(
            slots=config.slots,
            cache_length=config.cache_length,
            prefills=config.prefills,
            vocab=plan.model.vocab,
            eos_ids=plan.eos_ids,
            positions=plan.model.position_limit,
        )

    @property
    def model(self) -> ModelSpec:
        """Sizes and switches of what it runs."""
        return self._plan.model

    @property
    def config(self) -> EngineConfig:
        """How it was set up."""
        return self._plan.config

    @property
    def peak_bytes(self) -> int | None:
        """The most that the fullest device has held since the process began; None on CPU, whose
        memory is the process's own."""
        return memory.peak_bytes(self._plan.mesh.devices.ravel().tolist())

    @property
    def temporaries(self) -> int:
        """Bytes of scratch memory of the largest compiled program, per device."""
        return max(_temporary_bytes(program) for program in self.programs.values())

    @property
    def summary(self) -> EngineSummary:
        """What this engine is and holds."""
        plan, config = self._plan, self._plan.config
        devices = plan.mesh.devices.ravel()
        needed = plan.memory(self._parameters)
        table = memory.tree_bytes(self._parameters.embedding, plan.parameter_shardings().embedding)
        return EngineSummary(
            model=plan.model.name,
            device_kind=devices[0].device_kind,
            devices=len(devices),
            slots=config.slots,
            cache_length=config.cache_length,
            parameters=plan.model.parameters,
            weight_bytes=needed.weights * len(devices),
            step_weight_bytes=(needed.weights - table) * len(devices),
            cache_bytes_per_position=needed.cache
            * len(devices)
            // (config.slots * config.cache_length),
        )

    def reading(self, window: int, chunk: int) -> Reading:
        """Reads texts with these weights, beside the slots; lengths in tokens."""
        plan = self._plan
        return Reading(plan.model, plan.backend, plan.mesh, self._parameters, window, chunk)

    def prefill(self, chunks: Sequence[PrefillChunk]) -> DeviceStep:
        """See `protocol.Engine`."""
        config = self._plan.config
        longest = max(len(chunk.tokens) for chunk in chunks)
        seen = config.cache_length if any(chunk.start for chunk in chunks) else 0
        size = self.shape.prefill_size(longest)
        if len(chunks) > size.rows:
            raise ValueError(
                f"{len(chunks)} chunks of up to {longest} tokens; at most {size.rows} are read "
                "at once"
            )
        chunks = [self._within_positions(chunk) for chunk in chunks]
        span = next(span for its, span in self._plan.prefills if its == size and span >= seen)
        packed = states.pack(chunks, size.rows, size.tokens, config.slots)
        self._cache, self._state, out = self.programs["prefill", size.tokens, span](
            self._parameters, self._cache, self._state, jax.device_put(packed, self._whole)
        )
        for chunk in chunks:
            if chunk.last:
                self._positions[chunk.slot] = chunk.start + len(chunk.tokens)
                self._active[chunk.slot] = True
                self._uses[chunk.slot] += 1
                self._logprobs[chunk.slot] = chunk.logprobs
        spare = size.rows - len(chunks)
        return self._step(
            out,
            [chunk.slot for chunk in chunks] + [-1] * spare,
            [chunk.logprobs for chunk in chunks] + [False] * spare,
        )

    def decode(self) -> DeviceStep:
        """`steps` tokens for every active slot."""
        config = self._plan.config
        self._positions[self._active] += config.steps
        furthest = int(self._positions[self._active].max(initial=1))
        span = next(size for size in self._plan.spans if size >= min(furthest, config.cache_length))
        self._cache, self._state, out = self.programs["decode", span](
            self._parameters, self._cache, self._state
        )
        return self._step(out, self._all_slots, list(self._logprobs))

    def release(self, slot: int) -> None:
        """Stops a slot early."""
        released = np.zeros(self._plan.config.slots, bool)
        released[slot] = True
        self._active[slot] = False
        self._state = self.programs["release",](
            self._state, jax.device_put(released, meshes.slot_sharding(self._plan.mesh))
        )

    def _within_positions(self, chunk: PrefillChunk) -> PrefillChunk:
        end, limit = chunk.start + len(chunk.tokens), self.shape.positions
        if limit is not None and end > limit:
            raise ValueError(f"a prompt of {end} tokens or more; the model has {limit} positions")
        return replace(chunk, max_tokens=self.shape.most_tokens(end, chunk.max_tokens))

    def _step(self, out: jax.Array, slots: Sequence[int], logprobs: Sequence[bool]) -> DeviceStep:
        uses = list(self._uses)

        def finished(slot: int) -> None:
            # A step under way when a slot was released may end the request that was in it, when
            # the next one has begun there.
            if self._uses[slot] == uses[slot]:
                self._active[slot] = False

        return DeviceStep(out, slots, logprobs, finished)


def _temporary_bytes(program: Any) -> int:
    analysis = program.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes
