"""Attention compiled for TPUs that are not there: splash is taken, split and small."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from server.attention.rows import Rows
from server.engine.backend import choose_backend, choose_uncached
from server.engine.config import EngineConfig
from server.engine.mesh import make_mesh
from server.quant import kv
from server.quant.kv import NoKV
from tests.attention.self_attention import Problem
from tests.models.tiny import tiny_spec

pytestmark = pytest.mark.tpu_compile
MIB = 2**20
# What libtpu asks of a machine that has no TPU.
SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@cache
def chips() -> list[jax.Device]:
    return list(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices)


@pytest.fixture(autouse=True)
def libtpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: make test-tpu-compile ACCELERATOR=tpu")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    yield


def compile_uncached(
    problem: Problem, devices: int = 1, sharding: str = "model", attention: str = "flash"
) -> tuple[str, Any]:
    """The name of the implementation and its program for rows of full length."""
    mesh = make_mesh(chips()[:devices], sharding)
    config = EngineConfig(slots=1, attention=attention, sharding=sharding)
    backend, name = choose_uncached(spec_of(problem), mesh, config, None)
    count, tokens = len(problem.lengths), problem.tokens

    def attend(qkv: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        starts = jnp.zeros(count, jnp.int32)
        rows = Rows(starts, starts + tokens, jnp.arange(count, dtype=jnp.int32), cos, sin)
        form = backend.operations.attention(rows, problem.window, 0, problem.scores)
        return form(qkv, NoKV(problem.window))[0]

    place = NamedSharding(mesh, PartitionSpec("data", None, "model"))
    shape = (count, tokens, problem.heads, problem.group + 2, problem.head)
    angle = (count, tokens, problem.head // 2)
    flat = NamedSharding(mesh, PartitionSpec("data"))
    given = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place),
        *(jax.ShapeDtypeStruct(angle, jnp.float32, sharding=flat),) * 2,
    )
    return name, jax.jit(attend, out_shardings=place).lower(*given).compile()


def spec_of(problem: Problem) -> Any:
    heads = problem.heads * problem.group
    changes: dict = {"positions": "alibi"} if problem.alibi else {}
    return tiny_spec(heads=heads, kv_heads=problem.heads, head_dim=problem.head, **changes)


@pytest.mark.parametrize(
    ("problem", "devices", "sharding"),
    [
        (Problem((2048,), 2048, 3, 3, 64, 2048), 1, "model"),
        (Problem((2000,), 2000, 2, 2, 128, 500), 1, "model"),
        (Problem((512,), 512, 1, 8, 256, 512), 1, "model"),
        (Problem((512,), 512, 2, 2, 80, 512), 1, "model"),
        (Problem((2048,), 2048, 8, 4, 128, 2048), 8, "model"),
        (Problem((2048,) * 8, 2048, 8, 4, 128, 2048), 8, "batch"),
    ],
    ids=str,
)
def test_splash_serves(problem: Problem, devices: int, sharding: str) -> None:
    name, program = compile_uncached(problem, devices, sharding)
    assert name == "splash"
    assert "tpu_custom_call" in program.as_text()
    assert program.memory_analysis().temp_size_in_bytes < 8 * MIB


@pytest.mark.parametrize("alibi", [False, True])
def test_memory(alibi: bool) -> None:
    """8,192 tokens of 32 heads: their scores would take 8 GiB."""
    problem = Problem((8192,), 8192, 8, 4, 128, 8192, alibi=alibi)
    name, program = compile_uncached(problem)
    assert name == ("blockwise" if alibi else "splash")
    assert program.memory_analysis().temp_size_in_bytes < 256 * MIB


def test_a_first_chunk_through_the_cache() -> None:
    """What a server compiles: the chunk attends by splash and goes to its slot."""
    mesh = make_mesh(chips(), "model")
    problem = Problem((256, 256), 256, 8, 2, 128, 1024)
    backend = choose_backend(spec_of(problem), mesh, EngineConfig(slots=2), None)

    def read(qkv, cos, sin, cache):
        starts = jnp.zeros(2, jnp.int32)
        rows = Rows(starts, starts + 256, jnp.arange(2, dtype=jnp.int32), cos, sin)
        return backend.operations.attention(rows, 1024, 0, problem.scores)(qkv, cache)

    place = NamedSharding(mesh, PartitionSpec(None, None, "model"))
    cached = NamedSharding(mesh, PartitionSpec(None, "model"))
    angle = jax.ShapeDtypeStruct(
        (2, 256, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec())
    )
    qkv = jax.ShapeDtypeStruct((2, 256, 8, 4, 128), jnp.bfloat16, sharding=place)
    cache = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cached),
        jax.eval_shape(lambda: kv.empty(2, 8, 1024, 128, jnp.bfloat16)),
    )
    program = (
        jax.jit(read, donate_argnums=3, out_shardings=(place, cached))
        .lower(qkv, angle, angle, cache)
        .compile()
    )
    assert "tpu_custom_call" in program.as_text()
    assert not any(word in program.as_text() for word in ("all-gather", "all-reduce"))
