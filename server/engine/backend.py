"""Every choice that depends on the device, in one place."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from server.attention import choice, cudnn
from server.attention.choice import Case, Choice
from server.attention.decode import attend_einsum, attend_padded, attend_reduce
from server.attention.kernel import attend_in_kernel
from server.attention.plain import PlainAttention
from server.engine import memory
from server.engine import mesh as meshes
from server.engine.config import EngineConfig
from server.kernels import build, cpu
from server.models.operations import Operations
from server.models.spec import ModelSpec
from server.quant.bf16 import Bf16Form, PackedBf16Form
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

BF16 = "bf16"
# By scheme. Plain XLA serves every device; what CPUs do otherwise stands in the two below.
PLAIN: dict[str, Form] = {
    "none": DenseForm(jnp.bfloat16),
    BF16: DenseForm(jnp.bfloat16),
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
    BF16: Bf16Form(),
    "int8": Int8Form(TwoTermInt8),
}
KERNEL: dict[str, Form] = {
    "none": PackedDenseForm(),
    BF16: PackedBf16Form(),
    "int8": PackedInt8Form(),
    "int8-dynamic": PackedInt8Form(PackedDynamicInt8),
    "int8-decomp": PackedInt8Form(PackedDecompInt8),
    "nf4": PACKED_NF4,
    "nf4-dq": PackedNf4DqForm(),
    "int4": PACKED_INT4,
    "fp8": PackedFp8Form(),
}

Report = Callable[[str], None]


@dataclass(frozen=True)
class Backend:
    """How this device computes and stores.

    compute: the type of activations. cache: the type of keys and values, None for int8.
    reads_live: whether attention reads only live positions by itself; else programs are compiled
    for several spans of the cache. blockwise: whether chunks attend to the cache in blocks.
    on_host: whether its memory is the host's, so that compiled programs take of it.
    """

    compute: Any
    forms: Forms
    cache: Any
    operations: Operations
    reads_live: bool = False
    blockwise: bool = False
    on_host: bool = False


def choose_backend(
    spec: ModelSpec,
    mesh: Mesh,
    config: EngineConfig,
    kernel_dir: Path | None,
    report: Report = lambda _: None,
    instructions: Collection[str] | None = None,
) -> Backend:
    """The best forms for the devices of the mesh.

    CPUs compute in float32 (but for products under `bf16`) and use our kernel where it can be had:
    it needs a C compiler, AVX-512 VNNI, and arrays not split over devices; its attention, a head
    size that it can take; its products in bfloat16, AVX512-BF16. `instructions` as in
    `build.lacks_bf16`.
    """
    backend, no_kernel = _without_attention(mesh, config, kernel_dir, report, instructions)
    case = attention_case(spec, mesh, backend.compute, no_kernel)
    scores = memory.score_bytes(spec, config, mesh.shape["model"])
    case = replace(case, int8_cache=config.quantize_kv_cache, scores=scores)
    chosen = choice.attention(config.attention, case, mesh, _plain(mesh))
    report(f"attention: {chosen}")
    return _with_attention(backend, chosen, mesh)


def choose_uncached(
    spec: ModelSpec,
    mesh: Mesh,
    config: EngineConfig,
    kernel_dir: Path | None,
    report: Report = lambda _: None,
) -> tuple[Backend, str]:
    """The same for forwards that keep nothing, and the name of their attention."""
    backend, no_kernel = _without_attention(mesh, config, kernel_dir, report)
    case = attention_case(spec, mesh, backend.compute, no_kernel)
    chosen = choice.attention(config.attention, case, mesh, _plain(mesh))
    report(f"attention: {chosen}")
    return _with_attention(backend, chosen, mesh), chosen.name


def cpu_backend(config: EngineConfig, *, kernel: bool, bf16: bool = True) -> Backend:
    """The forms for CPUs, with our kernel or in plain XLA; `bf16`: its products in bfloat16 too."""
    cache = _cache_type(config, jnp.float32)
    if kernel:
        table = KERNEL if bf16 else KERNEL | {BF16: PLAIN_CPU[BF16]}
        forms = forms_of(config.weights, table)
        operations = Operations(
            attend_in_kernel, cpu.norm, cpu.layer_norm, cpu.activate, cpu.argmax
        )
        return Backend(jnp.float32, forms, cache, operations, reads_live=True, on_host=True)
    forms = forms_of(config.weights, PLAIN_CPU)
    operations = Operations(PlainAttention(attend_reduce))
    return Backend(jnp.float32, forms, cache, operations, on_host=True)


def forms_of(scheme: str, table: Mapping[str, Form]) -> Forms:
    """Of the layers and of the head."""
    return Forms(table[scheme], table[SCHEMES[scheme].head])


def _without_attention(
    mesh: Mesh,
    config: EngineConfig,
    kernel_dir: Path | None,
    report: Report,
    instructions: Collection[str] | None = None,
) -> tuple[Backend, str]:
    """A backend whose attention is still to be chosen, and why it has no CPU kernel."""
    if _platform(mesh) != "cpu":
        compute = jnp.bfloat16
        forms, cache = forms_of(config.weights, PLAIN), _cache_type(config, compute)
        operations = Operations(_plain(mesh))
        return Backend(compute, forms, cache, operations), "not a CPU"
    split = "arrays are split over several devices"
    no_kernel = split if mesh.size > 1 else build.load(kernel_dir)
    if no_kernel:
        report(f"CPU kernel not used ({no_kernel}); plain XLA instead")
        return cpu_backend(config, kernel=False), no_kernel
    no_bf16 = build.lacks_bf16(instructions) if config.weights == BF16 else ""
    if no_bf16:
        report(f"CPU kernel not used for products in bfloat16 ({no_bf16}); plain XLA instead")
    return cpu_backend(config, kernel=True, bf16=not no_bf16), no_kernel


def _with_attention(backend: Backend, chosen: Choice, mesh: Mesh) -> Backend:
    operations = replace(
        backend.operations,
        attention=chosen.form,
        residual=partial(meshes.whole_hidden, mesh),
    )
    return replace(
        backend,
        operations=operations,
        reads_live=chosen.reads_live,
        blockwise=chosen.blockwise,
    )


def attention_case(spec: ModelSpec, mesh: Mesh, compute: Any, no_kernel: str) -> Case:
    """What a model asks of attention on these devices. `no_kernel` as in `Case`."""
    if not no_kernel and not cpu.attention_fits(spec.heads, spec.kv_heads, spec.head_dim):
        no_kernel = (
            f"head size {spec.head_dim} is not a multiple of {cpu.LANES} up to {cpu.MAX_HEAD_DIM}"
        )
    name, capability = jnp.dtype(compute).name, _capability(mesh)
    alibi = spec.positions == "alibi"
    no_cudnn = ""
    if not cudnn.refuses(capability, spec.head_dim, name, alibi):
        no_cudnn = cudnn.trial(mesh.devices.flat[0], spec.head_dim, name)
    return Case(_platform(mesh), spec.head_dim, name, alibi, capability, no_kernel, no_cudnn)


def _platform(mesh: Mesh) -> str:
    return mesh.devices.flat[0].platform


def _capability(mesh: Mesh) -> tuple[int, int] | None:
    """An NVIDIA GPU's; AMD's have names instead of numbers."""
    major, dot, minor = str(getattr(mesh.devices.flat[0], "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None


def _plain(mesh: Mesh) -> PlainAttention:
    platform = _platform(mesh)
    if platform != "tpu":
        return PlainAttention(attend_reduce if platform == "cpu" else attend_einsum)
    # Imported where it serves: Pallas takes a second to import.
    from server.attention.tpu_store import TpuStore

    return PlainAttention(attend_padded, store=TpuStore(mesh))


def _cache_type(config: EngineConfig, compute: Any) -> Any:
    return None if config.quantize_kv_cache else compute
