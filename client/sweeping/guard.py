"""Outlives a sweep that was killed, to end the servers it had started.

Run as a file by `Processes`, isolated from everything else. Its input is lines of "+GROUP" and
"-GROUP": process groups that were started and that have ended. The input ends when the sweep does,
however it dies, and every group that is still listed is ended.
"""

import contextlib
import os
import signal
import sys
import time

TERM_SECONDS = 10.0


def main() -> None:
    """Reads until the sweep is gone, then ends what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        send(group, signal.SIGTERM)
    deadline = time.monotonic() + TERM_SECONDS
    while any(send(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Sends a signal (0: none) to a process group; whether there is such a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
