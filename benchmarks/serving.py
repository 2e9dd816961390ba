"""A server in a process of its own, started for a benchmark and stopped after it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_SECONDS = 900.0
STOP_SECONDS = 60.0


@contextmanager
def serving(options: Sequence[str], module: str = "server") -> Iterator[int]:
    """Runs `python -m MODULE OPTIONS` on a free port; gives the port once requests are taken.

    RuntimeError when the server ends or is not ready within READY_SECONDS.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", module, "--port", "0", "--ready-file", str(ready)]
        process = subprocess.Popen([*command, *options])
        try:
            yield _wait(process, ready)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen, ready: Path) -> int:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        if ready.exists() and ready.read_text():
            return json.loads(ready.read_text())["port"]
        time.sleep(0.1)
    raise RuntimeError(f"the server was not ready within {READY_SECONDS:.0f} s")


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
