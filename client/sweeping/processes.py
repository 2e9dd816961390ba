"""Processes that a sweep starts, none of which outlives it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from client.sweeping import guard

_POLL_SECONDS = 0.1
# For processes of a group whose first has ended already, and for what was killed.
_LEFT_OVER_SECONDS = 5.0
# Becomes the command once the guard knows of it; ends when the sweep is killed before that.
LAUNCH = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sweep")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or SIGHUP came."""


class Processes:
    """Starts process groups and turns interrupts into `Interrupted` where a wait can end well.

    Ctrl-C reaches the sweep alone: each group has a session of its own. A second one means that
    nothing is given time to end any more. A guard process ends the groups when the sweep itself is
    killed. To be used in the main thread, as a context.
    """

    def __init__(self) -> None:
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        for number in _SIGNALS:
            # nohup ignores SIGHUP on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait(guard.TERM_SECONDS + _LEFT_OVER_SECONDS)

    def start(self, command: Sequence[str], log: Path) -> "ProcessGroup":
        """Runs a command with its output in a file. OSError when no process can be started."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*LAUNCH, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.tell_guard(f"+{process.pid}")
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as launch:
            launch.write(b"go\n")
        return ProcessGroup(process, self)

    @property
    def hurried(self) -> bool:
        """Whether there was a second interrupt."""
        return self._interrupts > 1

    def check(self) -> None:
        """Raises `Interrupted` after an interrupt."""
        if self._interrupts:
            raise Interrupted

    def tell_guard(self, line: str) -> None:
        """Tells the guard of a group that started (+) or ended (-)."""
        assert self._guard.stdin is not None
        # Without a guard only a sweep that is killed leaves something behind.
        with suppress(BrokenPipeError):
            print(line, file=self._guard.stdin, flush=True)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1


class ProcessGroup:
    """A process and all that it starts."""

    def __init__(self, process: subprocess.Popen[bytes], processes: Processes) -> None:
        self._process = process
        self._processes = processes

    @property
    def status(self) -> int | None:
        """Exit status of the first process, minus the signal that killed it; None: running."""
        return self._process.poll()

    def wait(self, done: Callable[[], bool], seconds: float, tick: Callable[[], None]) -> bool:
        """Waits until `done()` or the first process has ended; False after `seconds`.

        Calls `tick()` all the while. Raises `Interrupted`.
        """
        deadline = time.monotonic() + seconds
        while self.status is None and not done():
            self._processes.check()
            if time.monotonic() > deadline:
                return False
            tick()
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self, seconds: float) -> None:
        """Ends the whole group: SIGTERM, and SIGKILL for what is left after `seconds`."""
        group = self._process.pid
        guard.send(group, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while guard.send(group, 0) and time.monotonic() < deadline and not self._processes.hurried:
            if self.status is not None:
                deadline = min(deadline, time.monotonic() + _LEFT_OVER_SECONDS)
            time.sleep(_POLL_SECONDS)
        guard.send(group, signal.SIGKILL)
        try:
            self._process.wait(_LEFT_OVER_SECONDS)
        except subprocess.TimeoutExpired:
            return  # stuck in the kernel; the guard keeps it in mind
        self._processes.tell_guard(f"-{group}")
