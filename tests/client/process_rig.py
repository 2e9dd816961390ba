"""Runs a command that starts processes and keeps a state, and looks for what it leaves behind."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from client_rig import ENVIRONMENT

# Inherited by every process that a command under test starts.
_MARK = "COMMAND_UNDER_TEST"
_LIMIT_SECONDS = 90.0


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    out: str
    err: str


class ProcessRig:
    """Commands whose state is a file in a folder of their own."""

    def __init__(self, folder: Path, file: str, format: str) -> None:
        self.folder = folder
        self.out = folder / "run"
        self._file = file
        self._format = format

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def run(self, *arguments: str, **more: str) -> Done:
        """Runs it to its end."""
        with self.started(*arguments, **more) as process:
            out, err = process.communicate(timeout=_LIMIT_SECONDS)
        return Done(process.returncode, out, err)

    @contextmanager
    def started(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """It under way; killed when the block ends."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = ENVIRONMENT | {_MARK: str(self.folder)}
        command = self.command(*arguments, **more)
        with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def state(self) -> dict[str, Any]:
        """The state file, which must be whole at any time."""
        state = json.loads((self.out / self._file).read_text())
        assert state["format"] == self._format
        return state

    def cells(self) -> dict[str, dict[str, Any]]:
        """The cells of the state file by their kind of weights; none before there is a file."""
        if not (self.out / self._file).exists():
            return {}
        return {cell.get("kind", cell.get("quantize")): cell for cell in self.state()["cells"]}

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Reads the state over and over until it has happened; fails after a while."""
        end = time.monotonic() + _LIMIT_SECONDS
        while not happened():
            self.cells()
            assert time.monotonic() < end
            time.sleep(0.01)

    def processes(self) -> list[str]:
        """Command lines of what the commands of this rig have running."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.folder):
                    found.append(" ".join(process.cmdline()))
        return found
