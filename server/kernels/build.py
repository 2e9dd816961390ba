"""Compiles the C files beside this one with the machine's own compiler and gives them to XLA.

After `load` the operations of `cpu.py` can be used inside `jax.jit`, any number at once. Where it
cannot be done it says why and the plain forms take over, which take three times as long.
"""

import ctypes
import functools
import platform
import threading
from collections.abc import Collection
from pathlib import Path

import jax
import jaxlib

from native.build import CannotBuildError, Library, open_library

_PARTS = (
    *("threads", "tiles", "products", "bf16", "codes", "outliers", "attention", "prefill"),
    *("uncached", "rows"),
)
SOURCES = tuple(f"cpu_{name}.c" for name in _PARTS)
HEADERS = ("cpu_threads.h", "cpu_math.h", "cpu_cache.h", "cpu_products.h")
# No -ffast-math: it lets NaN vanish. No contraction: both terms are rounded as in the reference.
FLAGS = (
    *("-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=off"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
)
INSTRUCTIONS = ("fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
BF16_INSTRUCTION = "avx512_bf16"
TARGETS = (
    *("int8_product", "dynamic_product", "decomp_product", "f32_product"),
    *("nf4_product", "nf4_dq_product", "int4_product", "fp8_product"),
    *("attention", "uncached_attention", "norm", "layer_norm", "silu", "gelu", "relu", "argmax"),
)
BF16_TARGET = "bf16_product"  # where the compiler knows the instruction
_REGISTERING = threading.Lock()


def load(cache_dir: Path | None, compiler: str | None = None) -> str:
    """Makes the operations callable in this process. Returns "" or the reason why it cannot.

    `cache_dir` keeps the compiled library for later starts, shared safely between processes; None
    compiles into a temporary folder (3 s). `compiler` None looks for cc, then gcc. Never raises for
    a machine that lacks something.
    """
    try:
        _check_processor()
        _register(open_library(_library(), cache_dir, compiler))
    except CannotBuildError as error:
        return str(error)
    return ""


def lacks_bf16(instructions: Collection[str] | None = None) -> str:
    """After `load` returned "": why `cpu.bf16_product` cannot be used; "" where it can.

    instructions: of the processor, as Linux names them; None for what this one has.
    """
    if BF16_INSTRUCTION not in (_instructions() if instructions is None else instructions):
        return f"the processor lacks {BF16_INSTRUCTION}"
    if not _has_bf16(_registered()[0]):
        return f"the C compiler does not know {BF16_INSTRUCTION}: gcc 10 or clang 9 does"
    return ""


def _library() -> Library:
    folder = Path(__file__).parent
    return Library(
        name="cpu_kernel",
        sources=tuple(folder / name for name in SOURCES),
        headers=tuple(folder / name for name in HEADERS),
        flags=(*FLAGS, f"-I{jax.ffi.include_dir()}"),
        version=jaxlib.__version__,
    )


def _check_processor() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise CannotBuildError(
            f"it is for Linux on x86_64, this is {platform.system()} on {platform.machine()}"
        )
    known = _instructions()
    missing = [name for name in INSTRUCTIONS if name not in known]
    if missing:
        raise CannotBuildError(f"the processor lacks {', '.join(missing)}")


def _instructions() -> list[str]:
    """What Linux says of this processor."""
    text = Path("/proc/cpuinfo").read_text()
    return next((line for line in text.splitlines() if line.startswith("flags")), "").split()


def _register(library: ctypes.CDLL) -> None:
    """Once per process: XLA refuses to start when a name has two handlers."""
    with _REGISTERING:
        if not _registered():
            _registered().append(library)
            optional = (BF16_TARGET,) if _has_bf16(library) else ()
            for name in (f"loadstone_{target}" for target in (*TARGETS, *optional)):
                capsule = jax.ffi.pycapsule(getattr(library, name))
                jax.ffi.register_ffi_target(name, capsule, platform="cpu")


def _has_bf16(library: ctypes.CDLL) -> bool:
    return hasattr(library, f"loadstone_{BF16_TARGET}")


@functools.cache
def _registered() -> list[ctypes.CDLL]:
    """What XLA's own registry, which lasts as long as the process, got from here."""
    return []
