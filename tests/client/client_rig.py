"""Starts scripted servers and runs the benchmark command, for the client's tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import client

ROOT = Path(client.__file__).parents[1]
SERVER = Path(__file__).with_name("scripted_orchestrator.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Server:
    """A scripted server under way."""

    port: int
    process: subprocess.Popen[str]


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """A scripted server until the block ends."""
    command = [sys.executable, str(SERVER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), process)
        finally:
            process.kill()


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


def outcome(folder: Path, status: int, out: str, err: str) -> Outcome:
    """Reads what the command wrote; an empty record when it wrote none."""
    record, rows = {}, []
    for path in (folder / "runs").glob("loadstone-*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        record = json.loads(path.with_suffix(".json").read_text())
    return Outcome(status, out, err, record, rows, folder / "runs")
