"""The compiler's process, seen from the planner."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from capacity.compiled.answer import Answer
from capacity.compiled.ask import Ask
from capacity.compiled.kept import Kept
from capacity.compiled.target import Target
from client.errors import UsageError

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_KEPT_LINES = 20

Report = Callable[[str], None]


class TimeUpError(UsageError):
    """The compiler was given too little time for all that it was asked."""


@dataclass
class Compiler:
    """Answers asks one after the other; what was answered before is not compiled again.

    compiles: asks that were not answered from what was kept.
    """

    process: subprocess.Popen[str]
    events: "queue.Queue[dict[str, Any] | None]"
    errors: list[str]
    kept: Kept
    until: float
    report: Report
    versions: dict[str, str] = field(default_factory=dict)
    compiles: int = 0

    def ask(self, ask: Ask) -> Answer:
        """The compiler's answer, its refusals included.

        UsageError when it cannot be asked so or its process dies, TimeUpError when time is up; what
        was compiled by then is kept.
        """
        key = ask.key(self.versions)
        if (found := self.kept.load_answer(key)) is not None:
            return Answer.from_dict(found)
        self.compiles += 1
        self._send(ask)
        title = f"{ask.model['name']}, batch {ask.slots}"
        while True:
            event = self._next()
            if "progress" in event:
                self.report(f"compiling {title}: {event['progress']}")
            elif "refusal" in event:
                self.report(f"compiling {title}: {event['refusal']['name']} is refused")
            elif "error" in event:
                raise UsageError(event["error"])
            elif "answer" in event:
                self.kept.save_answer(key, event["answer"])
                return Answer.from_dict(event["answer"])

    def start(self) -> None:
        """Waits until the process says what it compiles with."""
        hello = self._next(_START_SECONDS)
        self.versions = dict(hello["hello"])

    def _send(self, ask: Ask) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(ask.as_dict()) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def _next(self, most: float = float("inf")) -> dict[str, Any]:
        left = min(self.until - time.monotonic(), most)
        try:
            event = self.events.get(timeout=max(left, 0.0))
        except queue.Empty:
            raise TimeUpError(
                "the compiler was still at work when time was up; what it finished is kept, so the "
                "same command goes on from there: give it more with --time-limit SECONDS, or ask "
                "for less with --programs decode"
            ) from None
        if event is None:
            raise self._died()
        return event

    def _died(self) -> UsageError:
        code = self.process.wait(_END_SECONDS)
        last = "\n".join(self.errors[-_KEPT_LINES:])
        return UsageError(f"the compiler's process ended with status {code}; it said:\n{last}")


@contextlib.contextmanager
def compiler(
    target: Target, folder: Path, python: Path | None, seconds: float, report: Report
) -> Iterator[Compiler]:
    """A process for a target, ended with the block. `python`: the interpreter; None for this one.

    UsageError when it does not start.
    """
    command = [str(python or sys.executable), "-m", "capacity.compiled.worker", str(folder)]
    environment = os.environ | target.environment()
    environment["PYTHONPATH"] = ":".join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"cannot start {command[0]}: {error.strerror}") from error
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    threads = [
        threading.Thread(target=_read_events, args=(process.stdout, events), daemon=True),
        threading.Thread(target=_read_errors, args=(process.stderr, errors), daemon=True),
    ]
    for thread in threads:
        thread.start()
    found = Compiler(process, events, errors, Kept(folder), time.monotonic() + seconds, report)
    try:
        found.start()
        yield found
    finally:
        _end(process)
        for thread in threads:
            thread.join(_END_SECONDS)


def _read_events(stream: IO[str], events: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in stream:
        events.put(json.loads(line))
    events.put(None)


def _read_errors(stream: IO[str], errors: list[str]) -> None:
    for line in stream:
        errors.append(line.rstrip())
        del errors[:-_KEPT_LINES]


def _end(process: subprocess.Popen[str]) -> None:
    """Nothing is lost with it: results are kept as they come."""
    process.kill()
    process.wait(_END_SECONDS)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
