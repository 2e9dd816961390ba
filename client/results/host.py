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
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int | None:
    # Not os.cpu_count(): a container or taskset may leave fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
