"""One exam: a candidate in one jailed process, its examiner in another, two pipes between them."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import client
from client.judging.jail.confine import Order
from client.judging.jail.examiner import BROKEN, DIED, PASSED
from client.judging.limits import MIB, Limits
from client.judging.pipes import Pipes, read_to_end
from client.judging.process import JailedProcess, JailError, view
from client.judging.verdict import Outcome, Verdict

_PACKAGE_ROOT = str(Path(client.__file__).parents[1])
_MOST_STATUS_BYTES = 1 << 20
_END_SECONDS = 2.0  # for a process to be seen as gone once its pipes are closed
_CPU_SIGNALS = (24, 9)  # SIGXCPU, and SIGKILL a second later where it was not heard


@dataclass(frozen=True)
class Task:
    """Tests of one function. `tests` define `check(candidate)`; `preamble` is code that they may
    refer to, trusted as they are."""

    id: str
    preamble: str
    tests: str
    entry_point: str


@dataclass(frozen=True)
class Jail:
    """How candidates are held. `folder` is empty and stays so."""

    means: tuple[str, ...]
    limits: Limits
    folder: str

    @property
    def order(self) -> Order:
        """What a process is told."""
        return Order(
            means=self.means,
            view=tuple(view()),
            root=self.folder,
            cpu_seconds=self.limits.cpu_seconds,
            memory_bytes=self.limits.memory_mib * MIB,
        )


@dataclass(frozen=True)
class Sitting:
    """What came of an exam: the verdict, and what held the candidate."""

    verdict: Verdict
    held: tuple[str, ...]
    given_up: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Course:
    """What an examiner said, whether it ended in time, and the signals that processes died of."""

    said: bytes
    in_time: bool
    candidate_signal: int
    examiner_signal: int

    @property
    def result(self) -> dict[str, Any] | None:
        """The examiner's result; None where it came to none."""
        lines = self.said.splitlines()
        return json.loads(lines[1]) if len(lines) > 1 else None


def sit(program: str, task: Task, jail: Jail) -> Sitting:
    """Holds one exam. Every process it started has ended when it returns.

    Raises `JailError` when there can be no exam: the jail failed, or the tests do not load.
    """
    token = secrets.token_hex(16)
    with Pipes() as pipes:
        of_candidate = pipes.make()
        course = _hold(program, task, jail, token, pipes, of_candidate.writer)
        pipes.close(of_candidate.writer)
        said, _ = read_to_end(of_candidate.reader, _END_SECONDS, _MOST_STATUS_BYTES)
    _state(course.said, "examiner")
    # First: tests that do not load end the exam before the candidate may have come to sit.
    verdict = _verdict(course, token, task)
    state = _state(said, "candidate")
    return Sitting(
        verdict=verdict,
        held=tuple(state["held"]),
        given_up=tuple((means, reason) for means, reason in state["given_up"]),
    )


def _hold(
    program: str, task: Task, jail: Jail, token: str, pipes: Pipes, candidate_status: int
) -> _Course:
    calls, answers, status = pipes.make(), pipes.make(), pipes.make()
    candidate_ends = (calls.reader, answers.writer, candidate_status)
    examiner_ends = (answers.reader, calls.writer, status.writer)
    with _process(candidate_ends, jail) as candidate, _process(examiner_ends, jail) as examiner:
        # Whoever is left must see the other end.
        pipes.close(*calls, *answers, candidate_status, status.writer)
        common = {"jail": asdict(jail.order), "entry_point": task.entry_point}
        candidate.order(common | _named(candidate_ends) | {"part": "candidate", "program": program})
        examiner.order(
            common
            | _named(examiner_ends)
            | {"part": "examiner", "preamble": task.preamble, "tests": task.tests}
            | {"token": token}
        )
        said, in_time = read_to_end(status.reader, jail.limits.wall_seconds, _MOST_STATUS_BYTES)
        course = _Course(said, in_time, 0, 0)
        if in_time and (course.result or {"outcome": DIED})["outcome"] == DIED:
            signals = candidate.died_of(_END_SECONDS), examiner.died_of(_END_SECONDS)
            course = _Course(said, in_time, *signals)
    return course


def _named(ends: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("incoming", "outgoing", "status"), ends, strict=True))


@contextmanager
def _process(ends: tuple[int, int, int], jail: Jail) -> Iterator[JailedProcess]:
    process = JailedProcess(ends, _PACKAGE_ROOT, jail.folder)
    try:
        yield process
    finally:
        process.end()


def _state(said: bytes, which: str) -> dict[str, Any]:
    lines = said.splitlines()
    if not lines:
        raise JailError(f"the {which}'s process ended before it was confined")
    state: dict[str, Any] = json.loads(lines[0])
    if "failed" in state:
        raise JailError(f"the {which} cannot be confined: {state['failed']}")
    return state


def _verdict(course: _Course, token: str, task: Task) -> Verdict:
    result = course.result
    if result is None:
        if not course.in_time:
            return Verdict(Outcome.TIMEOUT, "no end in time")
        if course.examiner_signal in _CPU_SIGNALS:
            return Verdict(Outcome.TIMEOUT, "processor time used up in the tests")
        return Verdict(Outcome.DIED, "the tests did not survive its answers")
    if result["outcome"] == BROKEN:
        raise JailError(f"{task.id}: its tests do not load: {result['detail']}")
    if result["outcome"] == PASSED:
        if not secrets.compare_digest(str(result["proof"]), token):
            raise JailError(f"{task.id}: passed without proof")
        return Verdict(Outcome.PASSED)
    if result["outcome"] == DIED:
        if course.candidate_signal in _CPU_SIGNALS:
            return Verdict(Outcome.TIMEOUT, "processor time used up")
        by = f"of signal {course.candidate_signal}" if course.candidate_signal else "by itself"
        return Verdict(Outcome.DIED, f"its process ended {by}")
    return Verdict(Outcome(result["outcome"]), str(result["detail"]))
