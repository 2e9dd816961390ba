"""Whole forwards without a KV cache: the next token's logits, and the loss of a text."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from server.engine import memory
from server.engine import mesh as meshes
from server.engine.backend import choose_uncached
from server.engine.config import EngineConfig
from server.engine.losses import token_losses
from server.engine.memory import GIB, DoesNotFitError
from server.engine.open import (
    HEADROOM,
    ModelChoice,
    Report,
    place_parameters,
    use_compile_cache,
)
from server.models.decoder import Batch, forward, logits
from server.models.operations import Operations
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.quant.kv import NoKV
from server.weights.dummy import dummy_shapes

PROGRAMS = ("next_logits", "losses")


def open_uncached(
    choice: ModelChoice,
    *,
    weights: str = "none",
    attention: str = "flash",
    sharding: str = "model",
    devices: Sequence[jax.Device] | None = None,
    cache_dir: Path | None = None,
    report: Report = lambda _: None,
) -> "Uncached":
    """Loads the weights. `weights`, `attention` and `sharding` are as in EngineConfig.

    DoesNotFitError before anything is loaded when the weights need more than a device has free;
    ValueError names a setting that is not known.
    """
    devices = list(devices or jax.devices())
    if cache_dir is not None:
        use_compile_cache(cache_dir)
    config = EngineConfig(slots=1, weights=weights, attention=attention, sharding=sharding)
    spec, mesh = choice.spec, meshes.make_mesh(devices, sharding)
    backend, name = choose_uncached(spec, mesh, config, cache_dir, report)
    shapes = dummy_shapes(spec, backend.forms, backend.compute, meshes.mlp_blocks(spec, mesh))
    needed = memory.tree_bytes(shapes, meshes.parameter_shardings(spec, backend.forms, mesh))
    _check_fit(f"{spec.name}: the weights", needed, devices, "use fewer bits or more devices")
    parameters = place_parameters(choice, weights, backend, mesh, shapes, report)
    return Uncached(spec, parameters, backend.operations, mesh, name, report)


class Uncached:
    """A model on its devices. Programs are compiled for each size when it first comes.

    `attention` names the implementation that serves.
    """

    def __init__(
        self,
        spec: ModelSpec,
        parameters: Parameters,
        operations: Operations,
        mesh: Mesh,
        attention: str,
        report: Report = lambda _: None,
    ) -> None:
        self.spec = spec
        self.attention = attention
        self._parameters = parameters
        self._mesh = mesh
        self._forwards = Forwards(spec, operations)
        self._report = report
        self._programs: dict[tuple[str, int, int], Any] = {}

    def next_logits(self, tokens: Int32[np.ndarray, "B T"]) -> Float[np.ndarray, "B V"]:
        """Of the token after the last, float32."""
        return self._run("next_logits", tokens)

    def losses(self, tokens: Int32[np.ndarray, "B T"]) -> Float[np.ndarray, "B T-1"]:
        """Cross entropy of each token after the first given those before it, in nats, float32."""
        if np.ndim(tokens) == 2 and np.shape(tokens)[1] < 2:
            raise ValueError("a loss needs rows of at least 2 tokens: nothing predicts the first")
        return self._run("losses", tokens)[:, :-1]

    def loss(self, tokens: Int32[np.ndarray, "B T"]) -> float:
        """The mean of `losses`."""
        return float(np.mean(self.losses(tokens), dtype=np.float64))

    @property
    def devices(self) -> list[jax.Device]:
        """Those it runs on."""
        return self._mesh.devices.ravel().tolist()

    @property
    def weight_bytes(self) -> int:
        """Of the weights as they are kept, on all devices together."""
        leaves = jax.tree.leaves(self._parameters)
        return sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)

    @property
    def peak_bytes(self) -> int | None:
        """As of `JaxEngine`."""
        return memory.peak_bytes(self.devices)

    def memory(self, batch: int, tokens: int, program: str = "next_logits") -> int:
        """Bytes of temporaries of the program compiled for this size, on each device."""
        return self.compile(program, batch, tokens).memory_analysis().temp_size_in_bytes

    def compile(self, program: str, batch: int, tokens: int) -> Any:
        """The program, one of PROGRAMS, for rows of one size; compiled unless it is there.

        DoesNotFitError when it needs more memory than a device has free; ValueError for a size
        or a program that cannot be.
        """
        key = (program, batch, tokens)
        if key not in self._programs:
            self._check_size(program, batch, tokens)
            started = time.monotonic()
            shape = jax.ShapeDtypeStruct(
                (batch, tokens), jnp.int32, sharding=self._placement(batch)
            )
            function = jax.jit(
                getattr(self._forwards, program), out_shardings=meshes.whole(self._mesh)
            )
            compiled = function.lower(self._parameters, shape).compile()
            self._report(
                f"compiled {program} for {batch} x {tokens} tokens, "
                f"{time.monotonic() - started:.0f} s"
            )
            self._check_memory(compiled, program, batch, tokens)
            self._programs[key] = compiled
        return self._programs[key]

    def _run(self, program: str, tokens: np.ndarray) -> np.ndarray:
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens are {tokens.dtype} of shape {tokens.shape}; integers [batch, tokens]"
            )
        compiled = self.compile(program, *tokens.shape)
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.spec.vocab:
            raise ValueError(
                f"token ids from {low} to {high}; {self.spec.name} has 0 to {self.spec.vocab - 1}"
            )
        placed = jax.device_put(tokens.astype(np.int32), self._placement(len(tokens)))
        return np.asarray(compiled(self._parameters, placed))

    def _placement(self, batch: int) -> jax.sharding.NamedSharding:
        even = batch % self._mesh.shape["data"] == 0
        return meshes.slot_sharding(self._mesh) if even else meshes.whole(self._mesh)

    def _check_size(self, program: str, batch: int, tokens: int) -> None:
        if program not in PROGRAMS:
            raise ValueError(f"program is {program!r}; allowed: {', '.join(PROGRAMS)}")
        if batch < 1 or tokens < 1:
            raise ValueError(f"{batch} rows of {tokens} tokens; at least one of each")
        limit = self.spec.position_limit
        if limit is not None and tokens > limit:
            raise ValueError(f"{tokens} tokens; {self.spec.name} has {limit} positions")

    def _check_memory(self, compiled: Any, program: str, batch: int, tokens: int) -> None:
        analysis = compiled.memory_analysis()
        if analysis is None:
            return
        needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
        what = f"{self.spec.name}: {program} of {batch} x {tokens} tokens"
        devices = list(self._mesh.devices.flat)
        _check_fit(what, needed, devices, "use fewer rows or tokens, or flash attention")


@dataclass(frozen=True)
class Forwards:
    """The programs, as pure functions."""

    spec: ModelSpec
    operations: Operations

    def next_logits(
        self, parameters: Parameters, tokens: Int32[Array, "B T"]
    ) -> Float[Array, "B V"]:
        """See `Uncached`."""
        return logits(parameters, self._hidden(parameters, tokens)[:, -1])

    def losses(self, parameters: Parameters, tokens: Int32[Array, "B T"]) -> Float[Array, "B T"]:
        """See `Uncached`; behind the last token a value without meaning."""
        hidden = self._hidden(parameters, tokens)
        return token_losses(self.spec, parameters, hidden, jnp.roll(tokens, -1, axis=1))

    def _hidden(self, parameters: Parameters, tokens: Int32[Array, "B T"]) -> Float[Array, "B T D"]:
        rows, length = tokens.shape
        starts = jnp.zeros(rows, jnp.int32)
        batch = Batch(tokens, starts, starts + length, jnp.arange(rows, dtype=jnp.int32))
        window = min(length, self.spec.sliding_window or length)
        nothing = (NoKV(window),) * self.spec.layers
        return forward(self.spec, self.operations, parameters, nothing, batch, 0)[0]


def _check_fit(what: str, needed: int, devices: list[jax.Device], advice: str) -> None:
    free = int(memory.free_bytes(devices) * (1 - HEADROOM))
    if needed > free:
        raise DoesNotFitError(
            f"{what} needs {needed / GIB:.2f} GiB per device, and {free / GIB:.2f} GiB are free; "
            f"{advice}"
        )
