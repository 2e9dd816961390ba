"""Weight products in C for x86 CPUs with AVX-512 VNNI, called by XLA through its FFI.

`load` compiles `cpu_products.c` with the machine's own C compiler and registers it with XLA; after
that the products can be used inside `jax.jit`, any number at once. Where it cannot be done `load`
says why and the plain forms take over. XLA's own int8 product reaches half the speed.
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
from jaxtyping import Array, Float, Float32, UInt8

SOURCE = Path(__file__).with_name("cpu_products.c")
# No -ffast-math: it lets NaN vanish. No contraction: both terms are rounded as in the reference.
FLAGS = (
    *("-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=off"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
)
INSTRUCTIONS = ("fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
TARGETS = ("loadstone_int8_product", "loadstone_f32_product")
COMPILE_SECONDS = 120.0
LANES = 16  # outputs in one register
LOW_STEP = 254.0  # the second int8 term counts in 1/254 of the first
MAX_INPUTS = 65536  # 255 * 127 of each add up within an int32
LARGEST_FLOOR = 1e-30  # rows smaller than this share one step, so that 127 / largest stays finite
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
    """(x @ w.T) * scale with x in two int8 terms; see `int8_product_reference`."""
    shape = jax.ShapeDtypeStruct((x.shape[0], scale.shape[0]), jnp.float32)
    x = x.astype(jnp.float32)
    return jax.ffi.ffi_call("loadstone_int8_product", shape)(x, packed, scale)


def f32_product(
    x: Float[Array, "M K"], packed: Float32[Array, "blocks K 16"]
) -> Float32[Array, "M N"]:
    """x @ w.T, accumulated in float32."""
    shape = jax.ShapeDtypeStruct((x.shape[0], packed.shape[0] * LANES), jnp.float32)
    return jax.ffi.ffi_call("loadstone_f32_product", shape)(x.astype(jnp.float32), packed)


def int8_product_reference(
    x: Float[Array, "M K"], w: jax.Array, scale: Float32[Array, " N"]
) -> Float32[Array, "M N"]:
    """What `int8_product` computes, in plain XLA over codes int8 [N, K].

    x = s * (hi + lo / 254) with s = max|x| / 127 per row, both terms rounded half to even. A row
    with a value that is not finite is NaN throughout.
    """
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    step = jnp.where(jnp.isfinite(largest), largest / 127.0, jnp.nan)
    scaled = x * (127.0 / jnp.maximum(largest, LARGEST_FLOOR))
    high = jnp.round(scaled)
    low = jnp.round((scaled - high) * LOW_STEP)
    terms = jnp.concatenate([high, low]).astype(jnp.int8)
    y = jax.lax.dot_general(
        terms, w, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
    ).astype(jnp.float32)
    y_high, y_low = jnp.split(y, 2)
    return (y_high * step + y_low * (step / LOW_STEP)) * scale


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
    source = SOURCE.read_bytes()
    key = hashlib.sha256(repr((source, FLAGS, jaxlib.__version__)).encode()).hexdigest()[:16]
    target = folder / f"cpu_products-{key}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{target.name}.{os.getpid()}.{threading.get_ident()}"
        command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(partial)]
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
