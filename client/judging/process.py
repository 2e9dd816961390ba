"""One jailed process, from its start to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from client.judging.jail.start import main; main()"
)
# Isolated as by -I, with its own library only. Not -I itself, which would not hear of the hash
# seed: sets are in the same order in every exam.
_OPTIONS = ("-P", "-s", "-S", "-B", "-c", _BOOT)
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_END_SECONDS = 20.0
_POLL_SECONDS = 0.005


class JailError(Exception):
    """A jail cannot be made or does not end; says nothing about a candidate."""


class JailedProcess:
    """Waits for its orders from the start on; has to be ended."""

    def __init__(self, pipes: Sequence[int], package_root: str, folder: str) -> None:
        self._process = subprocess.Popen(
            [python(), *_OPTIONS, package_root],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd=folder,
            pass_fds=pipes,
            start_new_session=True,
        )

    def order(self, orders: dict[str, Any]) -> None:
        """Tells it what to do."""
        stream = self._process.stdin
        assert stream is not None
        try:
            stream.write(json.dumps(orders).encode())
            stream.close()
        except BrokenPipeError:
            raise JailError("a jailed Python did not start") from None

    def died_of(self, seconds: float) -> int:
        """The signal that ended it, waiting so long; 0 for none."""
        deadline = time.monotonic() + seconds
        peek = os.WEXITED | os.WNOHANG | os.WNOWAIT
        # Not waited for: until it is, its number belongs to no other process.
        while (found := os.waitid(os.P_PID, self._process.pid, peek)) is None:
            if time.monotonic() >= deadline:
                return 0
            time.sleep(_POLL_SECONDS)
        if found.si_code != os.CLD_EXITED:
            return found.si_status
        # One that waits for the process in the jail ends with 128 and that one's signal.
        return max(found.si_status - 128, 0)

    def end(self) -> None:
        """Kills it with all that it started."""
        with suppress(ProcessLookupError, PermissionError):  # macOS has the latter for the dead
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise JailError(f"process {self._process.pid} does not end when killed") from None
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


def python() -> str:
    """The interpreter itself, not a link to it in a virtual environment."""
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


def view() -> list[str]:
    """The folders that Python needs to run and to import its own library."""
    prefixes = [Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    system = map(Path, ("/usr", "/lib", "/lib64", "/nix/store"))
    wanted = [*prefixes, *(path.resolve() for path in prefixes), *system]
    return [str(path) for path in dict.fromkeys(wanted) if path != Path("/") and path.exists()]
