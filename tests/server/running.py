"""`python -m server` in a process of its own, on a tiny model, for tests."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tokenizers import Tokenizer as File
from tokenizers import decoders, models, pre_tokenizers

from tests.api.served import Served

MODELS = Path(__file__).parent.parent / "fixtures" / "models"
START_SECONDS = 180.0
SLOTS = 4
CACHE_LENGTH = 64
MAX_PROMPT = 200


@dataclass
class Running:
    """A server process and how to reach it."""

    process: subprocess.Popen
    served: Served
    ready: dict[str, Any]  # what the ready file holds

    @property
    def metrics_port(self) -> int:
        return self.ready["metrics_port"]

    def metrics(self) -> dict[str, float]:
        """The samples without labels."""
        return read_metrics(self.metrics_port)

    def end(self, timeout: float = 30.0) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def read_metrics(port: int) -> dict[str, float]:
    """Scrapes the metrics page."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#" and "{" not in line)
    return {name: float(value) for name, value in pairs}


def make_checkpoint(folder: Path, vocabulary: int | None = None) -> Path:
    """The tiny Llama 2 of the fixtures with a byte-level tokenizer of `vocabulary` entries."""
    source = MODELS / "llama2"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text())
    size = vocabulary or config["vocab_size"]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"<{n}>" for n in range(10_000))]
    file = File(models.BPE(vocab={piece: n for n, piece in enumerate(pieces[:size])}, merges=[]))
    file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    file.decoder = decoders.ByteLevel()
    file.save(str(folder / "tokenizer.json"))
    return folder


def launch(*options: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs a server that is expected to refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", "--platform", "cpu", *options],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        cwd=cwd,
    )


@contextmanager
def running(
    folder: Path,
    model: Path,
    *options: str,
    rolling: bool = True,
    credentials: grpc.ChannelCredentials | None = None,
) -> Iterator[Running]:
    """A server on `model`; killed at the end if it still runs."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", "0", "--metrics-port", "0", "--ready-file", str(ready)]
    command += ["--platform", "cpu", "--batch-size", str(SLOTS)]
    command += ["--cache-length", str(CACHE_LENGTH), "--max-prompt-length", str(MAX_PROMPT)]
    command += ["--rolling" if rolling else "--no-rolling", *options]
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, stderr=log)
    try:
        told = _wait(process, ready, folder / "log")
        served = Served(
            address=f"127.0.0.1:{told['port']}",
            vocab=json.loads((model / "config.json").read_text())["vocab_size"],
            max_prompt_length=MAX_PROMPT,
            max_tokens=32_768,
            cache_length=CACHE_LENGTH,
            rolling=rolling,
            has_tokenizer=True,
            credentials=credentials,
        )
        grpc.channel_ready_future(served.channel).result(timeout=20)
        yield Running(process, served, told)
        served.channel.close()
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait(process: subprocess.Popen, ready: Path, log: Path) -> dict[str, Any]:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the server ended: {log.read_text()[-2000:]}")
        if ready.exists() and (text := ready.read_text()):
            return json.loads(text)
        time.sleep(0.05)
    raise AssertionError(f"the server was not ready in time: {log.read_text()[-2000:]}")
