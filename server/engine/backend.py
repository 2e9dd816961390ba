"""Every choice that depends on the device, in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from server.attention.decode import attend_einsum, attend_reduce
from server.engine.config import EngineConfig
from server.models.decoder import DecodeAttention
from server.quant import cpu_kernel
from server.quant.dense import DenseForm, PackedDenseForm
from server.quant.int8 import Int8, Int8Form, PackedInt8Form, TwoTermInt8
from server.quant.weight import Form


@dataclass(frozen=True)
class Backend:
    """How this device computes and stores.

    compute: the type of activations. cache: the type of keys and values, None for int8.
    """

    compute: Any
    form: Form
    cache: Any
    attend: DecodeAttention


def choose_backend(
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
    reason = "weights are split over several devices"
    if mesh.size == 1:
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
    if kernel:
        form: Form = PackedInt8Form() if config.quantize_weights else PackedDenseForm()
    else:
        report(f"CPU kernel not used ({reason}); plain XLA instead")
        form = Int8Form(TwoTermInt8) if config.quantize_weights else DenseForm(jnp.float32)
    return Backend(jnp.float32, form, _cache_type(config, jnp.float32), attend_reduce)


def _cache_type(config: EngineConfig, compute: Any) -> Any:
    return None if config.quantize_kv_cache else compute


def host_platform() -> str:
    """The platform that JAX runs on by default."""
    return jax.default_backend()
