"""What a figure was measured on."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("loadstone", "jax", "jaxlib", "numpy", "grpcio")


def describe_machine() -> str:
    """One line: date, processor, cores, Python, versions."""
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today()}, {_processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}"
    )


def two_sides() -> tuple[frozenset[int], frozenset[int]]:
    """Cores for a server and for its client: the client has the last one to itself, unless it is
    the only one."""
    cores = sorted(os.sched_getaffinity(0))
    return frozenset(cores[:-1] or cores), frozenset(cores[-1:])


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Processes that are started inside run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
