"""A process that may have so much memory and no more.

Two limits, both the kernel's own count of one process:
- `resident`: the most physical memory that it has had (VmHWM). The process is killed as soon as
  that is above the limit, as the system kills where memory has run out. The count cannot miss a
  peak; it is looked at every few milliseconds, so a process may go over before it is stopped, by
  what it can touch in that time.
- `data`: RLIMIT_DATA, private memory that can be written, whether it was touched or not: stacks of
  threads and what an allocator holds ready count. The kernel refuses what goes beyond.

Where `resident` rules RLIMIT_DATA is set as well, `SLACK` higher: no trial can take the machine's
memory. Files that are mapped (libraries) are resident but not data.
"""

import contextlib
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
LIMITS = ("resident", "data")
SLACK = 2 * GIB
_FIELDS = {"resident": "VmHWM", "data": "VmData"}
_NO_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|MemoryError|bad_alloc|cannot allocate|failed to allocate"
    r"|can't start new thread",
    re.IGNORECASE,
)
_TAIL = 2000  # characters of the error stream


@dataclass(frozen=True)
class Limit:
    """At most so many bytes, counted as one of LIMITS says."""

    size: int
    kind: str = "resident"

    def __post_init__(self) -> None:
        if self.kind not in LIMITS:
            raise ValueError(f"a limit by {self.kind!r}; allowed: {', '.join(LIMITS)}")
        if self.size < 1:
            raise ValueError(f"a limit of {self.size} bytes; at least 1")


@dataclass(frozen=True)
class Ended:
    """How a process ended: "ok", "out of memory", "failed" or "timeout".

    peak: the most bytes that were seen, by the limit's count. lines: its standard output. error:
    the end of its error stream.
    """

    status: str
    peak: int
    seconds: float
    lines: tuple[str, ...]
    error: str


def run_limited(
    command: Sequence[str], limit: Limit | None, seconds: float, every: float = 0.005
) -> Ended:
    """Runs a command, for at most so many seconds. Its own children are not counted.

    With `limit` None it ends by itself or by the clock. An interrupt ends it too.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ) as process:
            try:
                if limit is not None:
                    _bound(process.pid, limit)
                peak, why = _watch(process, limit, started + seconds, every)
            finally:
                process.kill()
        for file in (out, err):
            file.seek(0)
        lines, error = tuple(out.read().splitlines()), err.read()
    status = why or _judge(process.returncode, error, limit)
    return Ended(status, peak, time.monotonic() - started, lines, error[-_TAIL:])


def counted(kind: str, process: int | str = "self") -> int:
    """Bytes of a process by the count of a limit; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    name = _FIELDS[kind] + ":"
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _bound(process: int, limit: Limit) -> None:
    size = limit.size + (SLACK if limit.kind == "resident" else 0)
    # It may be over already.
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process, resource.RLIMIT_DATA, (size, size))
        # Should the machine itself run out of memory, this is what it is to end.
        Path(f"/proc/{process}/oom_score_adj").write_text("1000")


def _watch(
    process: subprocess.Popen, limit: Limit | None, until: float, every: float
) -> tuple[int, str]:
    """The peak, and why the process had to be stopped, "" where it ended by itself."""
    peak = 0
    while True:
        if limit is not None:
            peak = max(peak, counted(limit.kind, process.pid))
            if limit.kind == "resident" and peak > limit.size:
                return peak, "out of memory"
        if time.monotonic() > until:
            return peak, "timeout"
        try:
            process.wait(every)
        except subprocess.TimeoutExpired:
            continue
        return peak, ""


def _judge(code: int, error: str, limit: Limit | None) -> str:
    if code == 0:
        return "ok"
    if code == -signal.SIGKILL or _NO_MEMORY.search(error):
        return "out of memory"
    # Libraries that do not look whether they were given memory.
    crashed = code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
    return "out of memory" if crashed and limit is not None and limit.kind == "data" else "failed"
