"""A server for sweeps: does what the word for its quantization says. A process of its own.

`none` serves the scripted Orchestrator, as a child process, so that there is a whole group to end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPTED = Path(__file__).with_name("scripted_orchestrator.py")
PLAN = {
    "model": "scripted",
    "device_kind": "cpu",
    "devices": 2,
    "weight_bytes": 8_000_000,
    "cache_bytes_per_position": 1_000,
    "parameters": 1_000_000,
}


def refuse(given: argparse.Namespace) -> None:
    """As a server that knows that a setting does not fit."""
    print("devices: 1 x cpu", file=sys.stderr)
    print(f"error: batch {given.batch_size} does not | fit", file=sys.stderr)
    sys.exit(2)


def killed(given: argparse.Namespace) -> None:
    """As the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def memory(given: argparse.Namespace) -> None:
    """As Python does."""
    raise MemoryError("cannot allocate the cache")


def crash(given: argparse.Namespace) -> None:
    """A fault of the server."""
    raise RuntimeError("the weights are upside down")


def hang(given: argparse.Namespace) -> None:
    """Never ready, and deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("compiling 1/9", file=sys.stderr, flush=True)
    time.sleep(120)


def none(given: argparse.Namespace) -> None:
    """Serves. Answers take a minute until the gate is there."""
    ttft = "60" if given.gate and not given.gate.exists() else "0.01"
    _serve(given, ttft)
    time.sleep(120)


def dies(given: argparse.Namespace) -> None:
    """Serves, and is killed with requests in flight."""
    child = _serve(given, "60")
    time.sleep(3)
    child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(given: argparse.Namespace, ttft: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPTED), "--ttft", ttft, "--itl", "0.001"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    ready = {"port": int(child.stdout.readline()), "plan": PLAN}
    # In two parts, as a reader may find it.
    with given.ready_file.open("w") as file:
        text = json.dumps(ready)
        file.write(text[:9])
        file.flush()
        time.sleep(0.2)
        file.write(text[9:])
    return child


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--cache-length", type=int)
    parser.add_argument("--quantize", choices=[name for name in globals() if name.isalpha()])
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--gate", type=Path)
    options = parser.parse_args()
    globals()[options.quantize](options)
