"""Every choice that depends on the device, in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from server.attention.decode import attend_einsum, attend_kernel, attend_reduce
from server.engine.config import EngineConfig
from server.models.decoder import DecodeAttention
from server.models.spec import ModelSpec
from server.quant import cpu_kernel
from server.quant.dense import DenseForm, PackedDenseForm
from server.quant.int8 import Int8, Int8Form, PackedInt8Form, TwoTermInt8
from server.quant.weight import Form


@dataclass(frozen=True)
class Backend:
    """How this device computes and stores.

    compute: the type of activations. cache: the type of keys and values, None for int8.
    reads_live: whether `attend` reads only live positions by itself; else decode is compiled for
    several spans of the cache.
    """

    compute: Any
    form: Form
    cache: Any
    attend: DecodeAttention
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
    a C compiler, AVX-512 VNNI and weights that are not split over devices.
    """
    platform = mesh.devices.flat[0].platform
    if platform != "cpu":
        compute = jnp.bfloat16
        form: Form = Int8Form(Int8) if config.quantize_weights else DenseForm(compute)
        return Backend(compute, form, _cache_type(config, compute), attend_einsum)
    if mesh.size > 1:
        reason = "arrays are split over several devices"
    elif not cpu_kernel.attention_fits(spec.heads, spec.kv_heads, spec.head_dim):
        reason = f"head size {spec.head_dim} does not suit it"
    else:
        reason = cpu_kernel.load(kernel_dir)
    return cpu_backend(config, kernel=not reason, report=report, reason=reason)


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
        packed: Form = PackedInt8Form() if config.quantize_weights else PackedDenseForm()
        return Backend(jnp.float32, packed, cache, attend_kernel, reads_live=True)
    report(f"CPU kernel not used ({reason}); plain XLA instead")
    plain: Form = Int8Form(TwoTermInt8) if config.quantize_weights else DenseForm(jnp.float32)
    return Backend(jnp.float32, plain, cache, attend_reduce)


def _cache_type(config: EngineConfig, compute: Any) -> Any:
    return None if config.quantize_kv_cache else compute
