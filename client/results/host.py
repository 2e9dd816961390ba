"""What the client ran on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_host() -> dict[str, Any]:
    """Versions, processor and cores this process may use."""
    return {
        "node": platform.node(),
        "python": platform.python_version(),
        "grpc": _version("grpcio"),
        "loadstone": _version("loadstone"),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": _cores(),
        "avx512_bf16": has_bf16(),
    }


def has_bf16() -> bool:
    """Whether the processors multiply bfloat16 at twice the rate of float32 (AVX512-BF16)."""
    return "avx512_bf16" in _cpuinfo("flags").split()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str:
    """Of the first processor; "" where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(found, "")


def _cores() -> int | None:
    # Not os.cpu_count(): a container or taskset may leave fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
