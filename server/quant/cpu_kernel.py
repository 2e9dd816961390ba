"""Weight products and decode attention in C for x86 CPUs with AVX-512 VNNI, through XLA's FFI.

`load` compiles the C files beside this one with the machine's own compiler and registers them with
XLA; after that they can be used inside `jax.jit`, any number at once. Where it cannot be done it
says why and the plain forms take over, which take three times as long.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jaxtyping import Array, Float, Float32, Int32, UInt8

SOURCES = ("cpu_products.c", "cpu_attention.c")
HEADERS = ("cpu_threads.h",)
# No -ffast-math: it lets NaN vanish. No contraction: both terms are rounded as in the reference.
FLAGS = (
    *("-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=off"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
)
INSTRUCTIONS = ("fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
TARGETS = ("loadstone_int8_product", "loadstone_f32_product", "loadstone_decode_attention")
COMPILE_SECONDS = 120.0
LANES = 16  # outputs in one register
MAX_HEAD_DIM = 256
MAX_INPUTS = 65536  # 255 * 127 of each add up within an int32
_REGISTERING = threading.Lock()


class KernelUnavailable(Exception):
    """This machine cannot build or run the kernel; the message says why."""


def load(cache_dir: Path | None, compiler: str | None = None) -> str:
    """Makes the products callable in this process. Returns "" or the reason why it cannot.

    `cache_dir` keeps the compiled library for later starts, shared safely between processes; None
    compiles into a temporary folder (3 s). `compiler` None looks for cc, then gcc. Never raises for
    a machine that lacks something.
    """
    try:
        _check_processor()
        found = _find_compiler(compiler)
        library = _temporary(found) if cache_dir is None else _open(_build(found, cache_dir))
        _register(library)
    except KernelUnavailable as error:
        return str(error)
    return ""


def fits(outputs: int, inputs: int) -> bool:
    """Whether a weight [outputs, inputs] can be packed; the pack functions refuse others."""
    shaped = outputs % LANES == 0 and inputs % 4 == 0 and outputs > 0
    return shaped and 0 < inputs <= MAX_INPUTS


def pack_int8(w: Any) -> Any:
    """Codes int8 [N, K] -> uint8 [N/16, K/4, 16, 4], numpy or JAX as given; 128 added to each.

    ValueError unless N is a multiple of 16 and K of 4.
    """
    outputs, inputs = _checked(w)
    shifted = (w.astype(jnp.int16) + 128).astype(jnp.uint8)
    blocks = shifted.reshape(outputs // LANES, LANES, inputs // 4, 4)
    return blocks.transpose(0, 2, 1, 3)  # [N/16, 16, K/4, 4] -> [N/16, K/4, 16, 4]


def pack_f32(w: Any) -> Any:
    """float32 [N, K] -> [N/16, K, 16], numpy or JAX as given. ValueError as for `pack_int8`."""
    outputs, inputs = _checked(w)
    return w.reshape(outputs // LANES, LANES, inputs).transpose(0, 2, 1)


def int8_product(
    x: Float[Array, "M K"], packed: UInt8[Array, "blocks quads 16 4"], scale: Float32[Array, " N"]
) -> Float32[Array, "M N"]:
    """(x @ w.T) * scale with x in two int8 terms; see `two_term.py`."""
    shape = jax.ShapeDtypeStruct((x.shape[0], scale.shape[0]), jnp.float32)
    x = x.astype(jnp.float32)
    return jax.ffi.ffi_call("loadstone_int8_product", shape)(x, packed, scale)


def f32_product(
    x: Float[Array, "M K"], packed: Float32[Array, "blocks K 16"]
) -> Float32[Array, "M N"]:
    """x @ w.T, accumulated in float32."""
    shape = jax.ShapeDtypeStruct((x.shape[0], packed.shape[0] * LANES), jnp.float32)
    return jax.ffi.ffi_call("loadstone_f32_product", shape)(x.astype(jnp.float32), packed)


def attention_fits(heads: int, kv_heads: int, head_dim: int) -> bool:
    """Whether `decode_attention` takes these sizes."""
    return heads % kv_heads == 0 and head_dim % LANES == 0 and 0 < head_dim <= MAX_HEAD_DIM


def decode_attention(
    q: Float[Array, "B N H"],
    k: Array,
    v: Array,
    count: Int32[Array, " B"],
    scale: float,
    k_scale: Float32[Array, "B K S"] | None = None,
    v_scale: Float32[Array, "B K S"] | None = None,
) -> Float32[Array, "B N H"]:
    """softmax(q . k * scale) v over positions 0..min(count, S)-1 of each slot; reads no others.

    k, v [B, K, S, H] are float32, or int8 with `k_scale` and `v_scale`; N = K * G, the G queries of
    a kv head side by side. A slot with count 0 gives zeros. ValueError unless `attention_fits`.
    """
    if not attention_fits(q.shape[1], k.shape[1], q.shape[2]):
        raise ValueError(
            f"CPU attention cannot take {q.shape[1]} heads over {k.shape[1]} kv heads of size "
            f"{q.shape[2]}: heads must be a multiple of kv heads, the size a multiple of {LANES} "
            f"and at most {MAX_HEAD_DIM}; use a plain form"
        )
    scales = () if k_scale is None else (k_scale, v_scale)
    shape = jax.ShapeDtypeStruct(q.shape, jnp.float32)
    scaled = q.astype(jnp.float32) * jnp.float32(scale)
    return jax.ffi.ffi_call("loadstone_decode_attention", shape)(scaled, k, v, count, *scales)


def _checked(w: Any) -> tuple[int, int]:
    outputs, inputs = w.shape
    if not fits(outputs, inputs):
        raise ValueError(
            f"the CPU kernel cannot hold a weight of {outputs} outputs and {inputs} inputs: "
            f"outputs must be a multiple of {LANES}, inputs of 4 and at most {MAX_INPUTS}; "
            "use the plain form for it"
        )
    return outputs, inputs


def _check_processor() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise KernelUnavailable(
            f"it is for Linux on x86_64, this is {platform.system()} on {platform.machine()}"
        )
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    missing = [name for name in INSTRUCTIONS if name not in flags]
    if missing:
        raise KernelUnavailable(f"the processor lacks {', '.join(missing)}")


def _find_compiler(compiler: str | None) -> str:
    names = ("cc", "gcc") if compiler is None else (compiler,)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise KernelUnavailable(f"no C compiler: {' or '.join(names)} is not on the PATH")
    return found


def _build(compiler: str, folder: Path) -> Path:
    """The library in `folder`, compiled unless it is there already."""
    sources = [Path(__file__).with_name(name) for name in SOURCES]
    texts = [Path(__file__).with_name(name).read_bytes() for name in (*SOURCES, *HEADERS)]
    key = hashlib.sha256(repr((texts, FLAGS, jaxlib.__version__)).encode()).hexdigest()[:16]
    target = folder / f"cpu_kernel-{key}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{target.name}.{os.getpid()}.{threading.get_ident()}"
        include = f"-I{jax.ffi.include_dir()}"
        command = [compiler, *FLAGS, include, *map(str, sources), "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        if done.returncode != 0:
            raise KernelUnavailable(f"{compiler} failed: {done.stderr.strip()[-500:]}")
        partial.replace(target)  # atomic: another process sees a whole library or none
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailable(f"cannot build in {folder}: {error}") from error
    return target


@functools.cache
def _temporary(compiler: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:  # the mapping outlives the file
        return _open(_build(compiler, Path(folder)))


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelUnavailable(f"cannot open {path}: {error}") from error


def _register(library: ctypes.CDLL) -> None:
    """Once per process: XLA refuses to start when a name has two handlers."""
    with _REGISTERING:
        if not _registered():
            _registered().append(library)
            for name in TARGETS:
                capsule = jax.ffi.pycapsule(getattr(library, name))
                jax.ffi.register_ffi_target(name, capsule, platform="cpu")


@functools.cache
def _registered() -> list[ctypes.CDLL]:
    """What XLA's own registry, which lasts as long as the process, got from here."""
    return []
