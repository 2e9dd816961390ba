"""Compiles the C files beside this one with the machine's own compiler and gives them to XLA.

After `load` the operations of `cpu.py` can be used inside `jax.jit`, any number at once. Where it
cannot be done it says why and the plain forms take over, which take three times as long.
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

import jax
import jaxlib

SOURCES = tuple(
    f"cpu_{name}.c"
    for name in (
        "threads",
        "tiles",
        "products",
        "codes",
        "outliers",
        "attention",
        "prefill",
        "rows",
    )
)
HEADERS = ("cpu_threads.h", "cpu_math.h", "cpu_cache.h", "cpu_products.h")
# No -ffast-math: it lets NaN vanish. No contraction: both terms are rounded as in the reference.
FLAGS = (
    *("-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=off"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
)
INSTRUCTIONS = ("fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
TARGETS = (
    *("int8_product", "dynamic_product", "decomp_product", "f32_product"),
    *("nf4_product", "nf4_dq_product", "int4_product", "fp8_product"),
    *("attention", "norm", "layer_norm", "silu", "gelu", "relu", "argmax"),
)
COMPILE_SECONDS = 120.0
_REGISTERING = threading.Lock()


class KernelUnavailable(Exception):
    """This machine cannot build or run the kernel; the message says why."""


def load(cache_dir: Path | None, compiler: str | None = None) -> str:
    """Makes the operations callable in this process. Returns "" or the reason why it cannot.

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
            for name in (f"loadstone_{target}" for target in TARGETS):
                capsule = jax.ffi.pycapsule(getattr(library, name))
                jax.ffi.register_ffi_target(name, capsule, platform="cpu")


@functools.cache
def _registered() -> list[ctypes.CDLL]:
    """What XLA's own registry, which lasts as long as the process, got from here."""
    return []
