"""Runs the sweep command and looks for what it leaves behind."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from client_rig import ENVIRONMENT, conversation

SERVER = Path(__file__).with_name("sweep_server.py")
# Inherited by every process that a sweep starts.
_MARK = "SWEEP_UNDER_TEST"
_LIMIT_SECONDS = 90.0


@dataclass(frozen=True)
class Done:
    """A sweep that ended."""

    status: int
    out: str
    err: str


class Rig:
    """Sweeps of scripted servers in a folder of their own."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.out = folder / "sweep"
        self.gate = folder / "gate"
        data = folder / "data.json"
        data.write_text(json.dumps([conversation("go please", "a" * 8)]))
        self._client = ["--client", "--dataset-path", str(data), "--tokenizer", str(tokenizer)]

    def command(self, *arguments: str, server: str = "") -> list[str]:
        """The command line. Peaks are given, so that nothing is measured."""
        template = (
            f"{sys.executable} {SERVER} --batch-size {{batch_size}} --cache-length {{cache_length}}"
            f" --quantize {{quantize}} --ready-file {{ready_file}} {server}"
        )
        return [
            *(sys.executable, "-m", "client.sweep", "--server-command", template),
            *("--out", str(self.out), "--num-prompts", "4", "--stop-seconds", "2"),
            *("--bandwidth-gbps", "10", "--peak-tflops", "1", *arguments, *self._client),
        ]

    def run(self, *arguments: str, server: str = "") -> Done:
        """Runs it to its end."""
        with self.started(*arguments, server=server) as process:
            out, err = process.communicate(timeout=_LIMIT_SECONDS)
        return Done(process.returncode, out, err)

    @contextmanager
    def started(self, *arguments: str, server: str = "") -> Iterator[subprocess.Popen[str]]:
        """A sweep under way; killed when the block ends."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = ENVIRONMENT | {_MARK: str(self.folder)}
        command = self.command(*arguments, server=server)
        with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def state(self) -> dict[str, Any]:
        """The state file, which must be whole at any time."""
        state = json.loads((self.out / "sweep.json").read_text())
        assert state["format"] == "loadstone-sweep-1"
        return state

    def cells(self) -> dict[str, dict[str, Any]]:
        """The cells of the state file by their quantization; none before there is a file."""
        if not (self.out / "sweep.json").exists():
            return {}
        return {cell["quantize"]: cell for cell in self.state()["cells"]}

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Reads the state over and over until it has happened; fails after a while."""
        end = time.monotonic() + _LIMIT_SECONDS
        while not happened():
            self.cells()
            assert time.monotonic() < end
            time.sleep(0.01)

    def processes(self) -> list[str]:
        """Command lines of what the sweeps of this rig have running."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.folder):
                    found.append(" ".join(process.cmdline()))
        return found
