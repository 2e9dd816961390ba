"""Tiny models with random weights, and the decoder run on them step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from server.engine import mesh as meshes
from server.engine.backend import Backend, cpu_backend
from server.engine.config import EngineConfig
from server.models.decoder import Batch, Cache, forward, logits
from server.models.families import FAMILIES
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.quant import kv
from server.weights.load import load_parameters
from server.weights.source import Source


def tiny_spec(family: str = "llama", **changes: object) -> ModelSpec:
    """Two layers, two key/value heads of two queries each, and the switches of the family."""
    sizes = {
        "name": "tiny",
        "hidden": 64,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn": 96,
        "vocab": 128,
        "max_positions": 512,
    }
    return FAMILIES[family].spec(sizes | changes)


@dataclass
class Tensors:
    """A Source that holds its tensors."""

    spec: ModelSpec
    values: dict[str, np.ndarray]

    def names(self) -> set[str]:
        return set(self.values)

    def tensor(self, name: str) -> np.ndarray:
        return np.asarray(self.values[name], np.float32)


def random_tensors(spec: ModelSpec, seed: int = 0) -> Tensors:
    """Weights large enough for attention and logits to vary, under their Hugging Face names."""
    draw = np.random.RandomState(seed).standard_normal
    names = FAMILIES[spec.family].tensors

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(".bias"):
            return 0.7 * draw(shape)
        if len(shape) == 1:
            return 1 - names.norm_offset + 0.3 * draw(shape)
        if "embed" in name or "lm_head" in name:
            return 0.4 * draw(shape)
        return 1.5 * draw(shape) / shape[1] ** 0.5

    shapes = names.shapes(spec).items()
    return Tensors(spec, {name: value(name, shape).astype(np.float32) for name, shape in shapes})


@dataclass(frozen=True)
class Row:
    """A run of tokens for one slot, the first of them at position `start`."""

    slot: int
    start: int
    tokens: Sequence[int]


@dataclass(frozen=True)
class Model:
    """Parameters on their devices, and the decoder compiled over them."""

    spec: ModelSpec
    parameters: Parameters
    backend: Backend
    mesh: Mesh
    _programs: dict = field(default_factory=dict)

    def empty(self, slots: int, length: int) -> Cache:
        """A cache full of rubbish: nothing may depend on what was there."""
        rubbish = [
            kv.empty(slots, self.spec.kv_heads, length, self.spec.head_dim, self.backend.cache)
            for _ in range(self.spec.layers)
        ]
        filled = jax.tree.map(lambda x: jnp.full_like(x, 11), tuple(rubbish))
        return jax.device_put(filled, meshes.cache_sharding(self.spec, self.mesh))

    def read(
        self, cache: Cache, rows: Sequence[Row], width: int, span: int, spare: int = 0
    ) -> tuple[list[np.ndarray], Cache]:
        """Prefill of rows padded to `width` and `spare` empty ones: each row's logits."""
        slots = cache[0].k.shape[0]
        count = len(rows) + spare
        tokens = np.full((count, width), 7, np.int32)
        starts, lengths = np.zeros(count, np.int32), np.zeros(count, np.int32)
        named = np.full(count, slots, np.int32)
        for index, row in enumerate(rows):
            tokens[index, : len(row.tokens)] = row.tokens
            starts[index], lengths[index], named[index] = row.start, len(row.tokens), row.slot
        scores, cache = self._run(cache, Batch(tokens, starts, lengths, named), span)
        return [scores[index, : len(row.tokens)] for index, row in enumerate(rows)], cache

    def step(
        self, cache: Cache, tokens: Sequence[int], positions: Sequence[int], active, span: int
    ) -> tuple[np.ndarray, Cache]:
        """Decode over all slots: logits [B,V], of which only the active rows mean anything."""
        batch = Batch(
            np.asarray(tokens, np.int32)[:, None],
            np.asarray(positions, np.int32),
            np.asarray(active, np.int32),
            None,
        )
        scores, cache = self._run(cache, batch, span)
        return scores[:, 0], cache

    def _run(self, cache: Cache, batch: Batch, span: int) -> tuple[np.ndarray, Cache]:
        if span not in self._programs:
            self._programs[span] = jax.jit(partial(self._forward, span))
        scores, cache = self._programs[span](
            self.parameters, cache, jax.tree.map(np.asarray, batch)
        )
        return np.asarray(scores), cache

    def _forward(
        self, span: int, parameters: Parameters, cache: Cache, batch: Batch
    ) -> tuple[jax.Array, Cache]:
        hidden, cache = forward(self.spec, self.backend.operations, parameters, cache, batch, span)
        return logits(parameters, hidden), cache


def load(
    source: Source,
    *,
    weights: bool | str = False,
    cache: bool = False,
    backend: Backend | None = None,
    devices: int = 1,
    sharding: str = "model",
) -> Model:
    """A model in plain XLA unless `backend` says otherwise.

    `weights` is a scheme, or whether it is int8; `cache` whether it is int8.
    """
    spec = source.spec
    scheme = weights if isinstance(weights, str) else "int8" if weights else "none"
    config = EngineConfig(slots=1, weights=scheme, quantize_kv_cache=cache)
    backend = backend or cpu_backend(config, kernel=False)
    mesh = meshes.make_mesh(jax.devices()[:devices], sharding)
    parameters = load_parameters(
        source,
        spec,
        backend.forms,
        backend.compute,
        meshes.parameter_shardings(spec, backend.forms, mesh),
        meshes.mlp_blocks(spec, mesh),
    )
    return Model(spec, parameters, backend, mesh)
