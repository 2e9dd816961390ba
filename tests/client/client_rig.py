"""Starts scripted servers and runs the benchmark command, for the client's tests."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import client

ROOT = Path(client.__file__).parents[1]
SERVER = Path(__file__).with_name("scripted_orchestrator.py")
HTTP_SERVER = Path(__file__).with_name("scripted_http.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Server:
    """A scripted server under way."""

    port: int
    process: subprocess.Popen[str]


@contextmanager
def serving(*arguments: str, script: Path = SERVER) -> Iterator[Server]:
    """A scripted server until the block ends."""
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), process)
        finally:
            process.kill()


class Link:
    """A way to a server that can break in the middle of a stream. One thread a direction."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("localhost", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def half_close(self) -> None:
        """No more bytes come from the server; the other direction stays open."""
        self._frozen.set()
        for near, _ in self._pairs:
            near.shutdown(socket.SHUT_WR)

    def freeze(self) -> None:
        """No more bytes come from the server, and nothing says so."""
        self._frozen.set()

    def close(self) -> None:
        """Lets go of every socket."""
        for each in (self._listener, *(end for pair in self._pairs for end in pair)):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("localhost", self._server_port))
                self._pairs.append((near, far))
                for ends in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, breaks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (breaks and self._frozen.is_set()):
                    sink.sendall(data)


def wait_for(happened: Callable[[], bool], seconds: float = 15) -> None:
    """Returns when it has happened; fails after a while."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def conversation(prompt: str, reference: str, name: str = "c") -> dict[str, Any]:
    """One ShareGPT conversation of a human's prompt and an answer."""
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": reference}]
    return {"id": name, "conversations": turns}


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left."""

    status: int
    out: str
    err: str
    record: dict[str, Any]
    rows: list[dict[str, Any]]
    folder: Path


def benchmark_command(
    folder: Path, tokenizer_path: Path, port: int, conversations: Any, *arguments: str
) -> list[str]:
    """The command line; the conversations are written to the folder."""
    data = folder / "data.json"
    data.write_text(json.dumps(conversations))
    return [
        *(sys.executable, "-m", "client.benchmark", "--port", str(port)),
        *("--dataset-path", str(data), "--tokenizer", str(tokenizer_path)),
        *("--result-dir", str(folder / "runs"), "--disable-tqdm", *arguments),
    ]


def outcome(folder: Path, status: int, out: str, err: str, judged: bool = False) -> Outcome:
    """Reads what the command wrote; an empty record when it wrote none.

    A machine busy with other tests may make a run INVALID, which is right and not what most tests
    are about: unless `judged`, status 3 counts as what it would have been on a quiet machine.
    """
    record, rows = {}, []
    for path in (folder / "runs").glob("loadstone-*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        record = json.loads(path.with_suffix(".json").read_text())
    if status == 3 and record and not judged:
        status = 0 if record["completed"] == record["num_prompts"] else 1
    return Outcome(status, out, err, record, rows, folder / "runs")
