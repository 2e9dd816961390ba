"""Every way to read and write the cache does the same, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from server.attention.store import PlainStore, Store
from server.attention.tpu_store import TpuStore
from server.quant import kv
from server.quant.kv import KV
from tests.dealt import dealt

SLOTS, HEADS, SIZE = 8, 4, 16
MESHES = [(1, 1), (1, 4), (4, 1), (2, 2), (1, 8)]  # with 8 the heads do not divide
KINDS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "int8": None}
STORES = ["plain", "tpu"]


def make_mesh(shape: tuple[int, int]) -> Mesh:
    devices = np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    return Mesh(devices, ("data", "model"), (AxisType.Auto,) * 2)


def make_store(name: str, mesh: Mesh) -> Store:
    return TpuStore(mesh, interpret=True) if name == "tpu" else PlainStore()


def random_kv(seed: int, rows: int, tokens: int, kind: str) -> KV:
    k, v = np.random.RandomState(seed).standard_normal((2, rows, tokens, HEADS, SIZE))
    like = kv.empty(1, HEADS, 1, SIZE, KINDS[kind])
    return kv.encode(like, jnp.asarray(k, jnp.float32), jnp.asarray(v, jnp.float32))


def placed(cache: KV, mesh: Mesh) -> KV:
    heads = "model" if HEADS % mesh.shape["model"] == 0 else None
    return jax.device_put(cache, NamedSharding(mesh, PartitionSpec("data", heads)))


def same(found: KV, expected: list[np.ndarray]) -> None:
    for one, wanted in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), wanted)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "length"), dealt(STORES, MESHES, list(KINDS), [40, 128, 300])
)
def test_append(name: str, shape: tuple[int, int], kind: str, length: int) -> None:
    mesh = make_mesh(shape)
    cache, new = random_kv(0, SLOTS, length, kind), random_kv(1, SLOTS, 1, kind)
    index = np.asarray([0, 31, length - 1, length, 5, 32, length, 17], np.int32)[:, None]
    expected = [np.array(each) for each in jax.tree.leaves(cache)]
    for leaf, fresh in zip(expected, jax.tree.leaves(new), strict=True):
        for slot, at in enumerate(index[:, 0]):
            if at < length:
                leaf[slot, :, at] = np.asarray(fresh)[slot, :, 0]
    append = jax.jit(make_store(name, mesh).append, donate_argnums=0)
    same(append(placed(cache, mesh), new, index), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("name", STORES)
def test_write_and_read_slots(name: str, shape: tuple[int, int], kind: str) -> None:
    """Chunks of several slots, one of them around the end; spare rows name a slot out of range."""
    length, tokens = 40, 12
    mesh, store = make_mesh(shape), make_store(name, make_mesh(shape))
    cache, new = random_kv(2, SLOTS, length, kind), random_kv(3, 4, tokens, kind)
    slots = np.asarray([7, 2, SLOTS, 5], np.int32)
    starts, lengths = np.asarray([35, 0, 3, 20]), np.asarray([12, 5, 0, 1])
    offsets = np.arange(tokens)
    index = np.where(offsets < lengths[:, None], (starts[:, None] + offsets) % length, length)
    index = index.astype(np.int32)
    old = [np.array(each) for each in jax.tree.leaves(cache)]
    expected = [each.copy() for each in old]
    for leaf, fresh in zip(expected, jax.tree.leaves(new), strict=True):
        for n, t in np.argwhere(index < length):
            leaf[slots[n], :, index[n, t]] = np.asarray(fresh)[n, :, t]
    whole = placed(cache, mesh)
    read = jax.jit(store.read, static_argnums=2)(whole, slots, 24)
    for leaf, was in zip(jax.tree.leaves(read), old, strict=True):
        for n in (0, 1, 3):
            np.testing.assert_array_equal(np.asarray(leaf)[n], was[slots[n], :, :24])
    same(jax.jit(store.write, donate_argnums=0)(whole, new, slots, index), expected)
