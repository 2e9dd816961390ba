"""The judge on hostile programs: none passes, nothing is harmed, nothing is left."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_programs import HOSTILE, RIGHT
from judge_rig import DOUBLE, SOURCE, canaries, jailed_processes

from client.errors import UsageError
from client.judging.exam import Jail, Task, sit
from client.judging.jail.confine import (
    LANDLOCK,
    MEANS,
    NAMESPACES,
    NOBODY,
    PROCESS_LIMIT,
    SECCOMP,
)
from client.judging.judge import UNSAFE_FLAG, Judge
from client.judging.limits import Limits
from client.judging.probe import try_out
from client.judging.process import JailError
from client.judging.verdict import Outcome, Verdict

LIMITS = Limits(cpu_seconds=2, wall_seconds=8, memory_mib=512)
AT_ONCE = 6
JAILS = {
    "all means": MEANS,
    "no namespaces": (LANDLOCK, SECCOMP),
    "no filter": (NAMESPACES, NOBODY, PROCESS_LIMIT),
}
# Without a filter of system calls these do no harm, but they are not refused.
HARMLESS_WITHOUT_FILTER = {
    "calls the kernel itself", "sends a datagram", "speaks to the X server's kind of socket",
    "becomes a program", "starts threads",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="programs are contained by means of Linux"
)
Suite = tuple[dict[str, Verdict], list[str]]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(LIMITS) as judge:
        yield judge


@pytest.fixture(scope="module")
def suite(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The verdicts on every hostile program under all means, and the harm done."""
    return run_suite(judge, tmp_path_factory.mktemp("canaries"))


def run_suite(judge: Judge, folder: Path) -> Suite:
    with pytest.MonkeyPatch.context() as patch, canaries(folder) as set_out:
        patch.setenv("LOADSTONE_SECRET", "secret")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            programs = [set_out.fill_in(program) for program, _ in HOSTILE.values()]
            verdicts = list(pool.map(lambda program: judge.judge(program, DOUBLE), programs))
        time.sleep(0.3)  # what arrives, arrives
        return dict(zip(HOSTILE, verdicts, strict=True)), set_out.harmed()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails(suite: Suite, name: str) -> None:
    verdict, wanted = suite[0][name], HOSTILE[name][1]
    assert not verdict.passed, verdict
    assert wanted is None or verdict.outcome is wanted, verdict


def test_nothing_is_harmed(suite: Suite) -> None:
    assert suite[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no namespaces", "no filter"])
def test_other_jails_hold_too(name: str, tmp_path: Path) -> None:
    """Each on its own; a machine may not have all."""
    with Judge(LIMITS, JAILS[name]) as judge:
        if set(judge.containment.held) - set(JAILS[name]):
            pytest.skip(f"this machine has no {name}: {judge.containment.describe()}")
        verdicts, harm = run_suite(judge, tmp_path)
    harmless = HARMLESS_WITHOUT_FILTER if SECCOMP not in JAILS[name] else set()
    assert harm == []
    assert [each for each, verdict in verdicts.items() if verdict.passed] == [
        each for each in verdicts if each in harmless and verdicts[each].passed
    ]


def test_right_programs_pass(judge: Judge) -> None:
    for program in (RIGHT, "import math, hashlib, re\n" + RIGHT, "print('x')\n" + RIGHT):
        assert judge.judge(program, DOUBLE) == Verdict(Outcome.PASSED)


def test_why_a_program_fails_is_told(judge: Judge) -> None:
    wrong = Task("w", "", "def check(c):\n    assert c(2) == 5, 'not five'\n", "f")
    assert judge.judge(RIGHT, wrong) == Verdict(Outcome.WRONG, "not five")
    found = judge.judge("def f(x):\n    return {}[x]", DOUBLE)
    assert found == Verdict(Outcome.RAISED, "KeyError: 2")


def test_tests_see_what_they_would_in_one_process(judge: Judge) -> None:
    """Helpers of the prompt, exceptions by their kind, keywords, and data of every plain type."""
    preamble = "import math\ndef half(x):\n    return x / 2\ndef f(x, *, by=1):\n    pass\n"
    tests = """
def check(candidate):
    assert candidate is f
    assert half(candidate(3.0, by=2)) == 3.0
    assert candidate((1, [2, {3: {4}}])) == (1, [2, {3: {4}}]) * 1
    try:
        candidate(None)
    except TypeError as error:
        assert "None" in str(error)
    else:
        assert False
    assert list(candidate("generate")) == [0, 1]
    assert math.isnan(candidate("nan"))
"""
    program = """
def f(x, *, by=1):
    if x == "generate":
        return iter(range(2))
    if x == "nan":
        return float("nan")
    if x is None:
        raise TypeError("not None")
    return x * by
"""
    assert judge.judge(program, Task("t", preamble, tests, "f")).passed


def test_sets_are_in_the_same_order_every_time(judge: Judge) -> None:
    tests = "def check(c):\n    assert False, c(0)\n"
    program = "def f(x):\n    return ' '.join({'a', 'bb', 'ccc', 'dddd', 'eeeee'})"
    orders = {judge.judge(program, Task("t", "", tests, "f")).detail for _ in range(3)}
    assert len(orders) == 1


def test_broken_tests_are_no_verdict(judge: Judge) -> None:
    for tests in ("def check(c", "x = 1", "1 / 0"):
        with pytest.raises(JailError, match="broken: its tests do not load"):
            judge.judge(RIGHT, Task("broken", "", tests, "f"))


def test_a_leaking_jail_is_seen_and_refused(tmp_path: Path) -> None:
    """The trial is a test that can fail: with nothing in force it gets most things done."""
    breaches = try_out(Jail((), LIMITS, str(tmp_path))).breaches
    acts = ("read a file", "for writing", "deleted", "renamed", "created", "connected", "a process",
            "a program", "a signal")  # fmt: skip
    for act in acts:
        assert any(act in breach for breach in breaches), (act, breaches)
    with pytest.raises(UsageError, match=f"(?s)NOTHING.*{UNSAFE_FLAG}"), Judge(LIMITS, means=()):
        pass
    with Judge(LIMITS, means=(), unsafe=True) as judge:
        assert not judge.containment.whole
        assert judge.judge(RIGHT, DOUBLE).passed


@pytest.mark.parametrize("means", [(SECCOMP,), (LANDLOCK,), (PROCESS_LIMIT,)])
def test_one_means_alone_is_not_enough(means: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="NOTHING"), Judge(LIMITS, means):
        pass


def test_a_jail_that_weakens_is_no_verdict(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "_jail", Jail((LANDLOCK, SECCOMP), LIMITS, judge._jail.folder))
    with pytest.raises(JailError, match="and not by"):
        judge.judge(RIGHT, DOUBLE)


def test_an_exam_leaves_no_descriptors(judge: Judge) -> None:
    judge.judge(RIGHT, DOUBLE)
    before = list(Path("/proc/self/fd").iterdir())
    for program in (RIGHT, "import os\nos._exit(0)", "x ="):
        judge.judge(program, DOUBLE)
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_a_killed_judge_leaves_nothing(tmp_path: Path) -> None:
    """Its programs go with it."""
    ready = tmp_path / "ready"
    script = f"""
import threading, time
from client.judging.judge import Judge
from client.judging.limits import Limits
from client.judging.exam import Task
with Judge(Limits(600, 600.0)) as judge:
    threading.Timer(1.0, lambda: open({str(ready)!r}, "w").close()).start()
    judge.judge("import time; time.sleep(600)", Task("t", "", "def check(c): pass", "f"))
"""
    others = set(jailed_processes())
    root = str(SOURCE.parents[2])
    with subprocess.Popen([sys.executable, "-c", script], cwd=root) as process:
        wait_for(ready.exists)
        wait_for(lambda: bool(set(jailed_processes()) - others))
        process.kill()
    wait_for(lambda: not set(jailed_processes()) - others)


def test_another_user_can_judge() -> None:
    """Without root: the namespaces are then a user's own."""
    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not Path(python).exists():
        pytest.skip(f"needs root, to become another user, and {python}, which all may read")
    code = "from client.judging.judge import Judge; print(Judge().__enter__().containment.held)"
    code += "; import sys; sys.exit(not (3, 11) <= sys.version_info)"
    done = subprocess.run(
        [python, "-B", "-c", code],
        cwd=SOURCE.parents[2], capture_output=True, text=True, timeout=60, check=False,
        user=65534, group=65534, extra_groups=[], env={},
    )  # fmt: skip
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(f"another user cannot run this checkout: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    assert NOBODY not in done.stdout and PROCESS_LIMIT in done.stdout


@pytest.mark.parametrize("values", [{"cpu_seconds": 0}, {"wall_seconds": 0.0}, {"memory_mib": 1}])
def test_limits_that_leave_nothing_are_refused(values: dict) -> None:
    with pytest.raises(UsageError, match="of a candidate"):
        Limits(**values)


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_exam_alone(tmp_path: Path) -> None:
    """`sit` says what held the candidate."""
    sitting = sit(RIGHT, DOUBLE, Jail((LANDLOCK, SECCOMP), LIMITS, str(tmp_path)))
    assert sitting.verdict.passed and sitting.held == (LANDLOCK, SECCOMP)
    assert sitting.given_up == ()
