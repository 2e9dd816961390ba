"""What a figure was measured on."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("loadstone", "jax", "jaxlib", "numpy", "grpcio")


def describe_machine() -> str:
    """One line: date, processor, cores, Python, versions."""
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today()}, {_processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
