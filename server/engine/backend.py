"""Every choice that depends on the device, in one place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from server.attention.decode import attend_einsum, attend_padded, attend_reduce
from server.attention.kernel import attend_in_kernel
from server.attention.plain import PlainAttention
from server.engine.config import EngineConfig
from server.kernels import build, cpu
from server.models.operations import Operations
from server.models.spec import ModelSpec
from server.quant.dense import DenseForm, PackedDenseForm
from server.quant.fp8 import Fp8Form, PackedFp8Form
from server.quant.int4 import INT4, PACKED_INT4
from server.quant.int8 import Int8, Int8Form, PackedInt8Form, TwoTermInt8
from server.quant.int8_decomp import DecompInt8, PackedDecompInt8
from server.quant.int8_dynamic import DynamicInt8, PackedDynamicInt8
from server.quant.nf4 import NF4, PACKED_NF4
from server.quant.nf4_dq import Nf4DqForm, PackedNf4DqForm
from server.quant.schemes import SCHEMES
from server.quant.weight import Form, Forms

# By scheme. Plain XLA serves every device; what CPUs do otherwise stands in the two below.
PLAIN: dict[str, Form] = {
    "none": DenseForm(jnp.bfloat16),
    "int8": Int8Form(Int8),
    "int8-dynamic": Int8Form(DynamicInt8),
    "int8-decomp": Int8Form(DecompInt8),
    "nf4": NF4,
    "nf4-dq": Nf4DqForm(),
    "int4": INT4,
    "fp8": Fp8Form(),
}
PLAIN_CPU: dict[str, Form] = PLAIN | {
    "none": DenseForm(jnp.float32),
    "int8": Int8Form(TwoTermInt8),
}
KERNEL: dict[str, Form] = {
    "none": PackedDenseForm(),
    "int8": PackedInt8Form(),
    "int8-dynamic": PackedInt8Form(PackedDynamicInt8),
    "int8-decomp": PackedInt8Form(PackedDecompInt8),
    "nf4": PACKED_NF4,
    "nf4-dq": PackedNf4DqForm(),
    "int4": PACKED_INT4,
    "fp8": PackedFp8Form(),
}


@dataclass(frozen=True)
class Backend:
    """How this device computes and stores.

    compute: the type of activations. cache: the type of keys and values, None for int8.
    reads_live: whether attention reads only live positions by itself; else programs are compiled
    for several spans of the cache.
    """

    compute: Any
    forms: Forms
    cache: Any
    operations: Operations
    reads_live: bool = False


def choose_backend(
    spec: ModelSpec,
    mesh: Mesh,
    config: EngineConfig,
    kernel_dir: Path | None,
    report: Callable[[str], None] = lambda _: None,
) -> Backend:
    """The best forms for the devices of the mesh.

    CPUs compute in float32 (bf16 is slower there) and use our kernel where it can be had: it needs
    a C compiler, AVX-512 VNNI, and arrays not split over devices; its attention, a head size that
    it can take.
    """
    platform = mesh.devices.flat[0].platform
    if platform != "cpu":
        compute = jnp.bfloat16
        operations = Operations(_accelerated(platform, mesh))
        return Backend(
            compute, forms_of(config.weights, PLAIN), _cache_type(config, compute), operations
        )
    split = "arrays are split over several devices"
    reason = split if mesh.size > 1 else build.load(kernel_dir)
    backend = cpu_backend(config, kernel=not reason, report=report, reason=reason)
    if reason or cpu.attention_fits(spec.heads, spec.kv_heads, spec.head_dim):
        return backend
    report(
        f"CPU kernel not used for attention (head size {spec.head_dim} is not a multiple of "
        f"{cpu.LANES} up to {cpu.MAX_HEAD_DIM}); plain XLA instead"
    )
    operations = replace(backend.operations, attention=PlainAttention(attend_reduce))
    return replace(backend, operations=operations, reads_live=False)


def cpu_backend(
    config: EngineConfig,
    *,
    kernel: bool,
    report: Callable[[str], None] = lambda _: None,
    reason: str = "",
) -> Backend:
    """The forms for CPUs, with our kernel or in plain XLA."""
    cache = _cache_type(config, jnp.float32)
    if kernel:
        forms = forms_of(config.weights, KERNEL)
        operations = Operations(
            attend_in_kernel, cpu.norm, cpu.layer_norm, cpu.activate, cpu.argmax
        )
        return Backend(jnp.float32, forms, cache, operations, reads_live=True)
    report(f"CPU kernel not used ({reason}); plain XLA instead")
    forms = forms_of(config.weights, PLAIN_CPU)
    return Backend(jnp.float32, forms, cache, Operations(PlainAttention(attend_reduce)))


def _accelerated(platform: str, mesh: Mesh) -> PlainAttention:
    if platform != "tpu":
        return PlainAttention(attend_einsum)
    # Imported where it serves: Pallas takes a second to import.
    from server.attention.tpu_store import TpuStore

    return PlainAttention(attend_padded, TpuStore(mesh))


def forms_of(scheme: str, table: Mapping[str, Form]) -> Forms:
    """Of the layers and of the head."""
    return Forms(table[scheme], table[SCHEMES[scheme].head])


def _cache_type(config: EngineConfig, compute: Any) -> Any:
    return None if config.quantize_kv_cache else compute
