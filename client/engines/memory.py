"""Memory of this process on the host: its peak, and a limit. Standard library only, Linux."""

import contextlib
import resource
from pathlib import Path

_SELF = Path("/proc/self")
# Written to clear_refs, it sets the peak back to what is held now (proc_pid_clear_refs(5)).
_RESET_PEAK = "5"
_FIRST_TO_GO = "1000"


def limit(size: int) -> None:
    """No more than `size` bytes of heap and private memory; what asks for more is refused it."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def go_first() -> None:
    """When the machine's memory is short, this process is ended before those around it."""
    with contextlib.suppress(OSError):
        (_SELF / "oom_score_adj").write_text(_FIRST_TO_GO)


def reset_peak() -> bool:
    """Begins to look for the peak anew; False where the system does not let one."""
    try:
        (_SELF / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_resident() -> int:
    """The most bytes of memory this process held at a time since the last reset."""
    for line in (_SELF / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
