"""Runs of the command against the truth server, watched from outside."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from client_rig import ENVIRONMENT, Outcome, Server, conversation, outcome, wait_for

from client.calibration.floor import read_truth


def conversations(count: int, tokens: int = 4) -> list[dict]:
    """Conversations whose prompts all differ, `tokens` to ask for each."""
    answer = "a" * tokens
    return [conversation(f"prompt {number:05}", answer, str(number)) for number in range(count)]


def load_command(
    folder: Path, tokenizer_path: Path, port: int, data: list, *arguments: str
) -> list[str]:
    """The command line against an OpenAI server on a port; data and records in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.json"
    path.write_text(json.dumps(data))
    return [
        *(sys.executable, "-m", "client.benchmark", "--backend", "openai"),
        *("--base-url", f"http://127.0.0.1:{port}", "--tokenizer", str(tokenizer_path)),
        *("--dataset-path", str(path), "--result-dir", str(folder / "runs"), "--disable-tqdm"),
        *("--calibration", str(folder / "none.json"), *arguments),
    ]


def run_load(
    folder: Path, tokenizer_path: Path, port: int, data: list, *arguments: str, timeout: float = 60
) -> Outcome:
    """Runs the command to its end."""
    command = load_command(folder, tokenizer_path, port, data, *arguments)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False
    )
    return outcome(folder, done.returncode, done.stdout, done.stderr)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command under way, in a session of its own; what it started must end when it does."""
    with subprocess.Popen(
        command,
        env=ENVIRONMENT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
    wait_for(lambda: not of_session(process.pid))


def of_session(session: int) -> list[psutil.Process]:
    """Every living process of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            stat = Path(f"/proc/{process.pid}/stat").read_text()
        except OSError:
            continue
        state, _, _, its_session = stat.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(process)
    return found


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a running command."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def wait_for_requests(port: int, count: int) -> None:
    """Until the truth server was asked so many."""
    wait_for(lambda: len(read_truth(port)) >= count)


@contextmanager
def chatting(*arguments: str) -> Iterator[Server]:
    """A scripted chat server until the block ends."""
    command = [sys.executable, str(Path(__file__).with_name("scripted_chat.py")), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), process)
        finally:
            process.kill()


def asked_of(port: int) -> list[dict[str, Any]]:
    """What a scripted chat server was asked, in order."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/asked", timeout=10) as page:
        return json.load(page)


def most_at_once(intervals: list[tuple[float, float]]) -> int:
    """The most intervals that hold one moment."""
    changes = [(start, 1) for start, _ in intervals] + [(end, -1) for _, end in intervals]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
