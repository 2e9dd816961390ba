"""One row from what is there to all that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.grading.completion import Log
from client.grading.humaneval import tries
from client.grading.parts import (
    judge_programs,
    measure_perplexity,
    measure_speed,
    write_programs,
)
from client.grading.problems import Problem
from client.grading.record import QualityRecord
from client.grading.settings import QualityOptions
from client.grading.subject import Subject, opened
from client.grading.text import Text
from client.judging.judge import Judge


@dataclass(frozen=True)
class Material:
    """What rows are measured by, as far as it was asked for; the same for all."""

    text: Text | None = None
    problems: Sequence[Problem] = ()
    judge: Judge | None = None


@dataclass
class RowRun:
    """A row under way. `record` is as far as it is, and on disk."""

    options: QualityOptions
    material: Material
    record: QualityRecord
    path: Path

    @property
    def missing(self) -> list[str]:
        """The parts that are not there yet."""
        return [name for name in self.options.parts if name not in self.record.parts]

    def fill(self, label: str) -> None:
        """Measures what is missing; every part is on disk as soon as it is there.

        `label` stands before the progress of each.

        Raises `NotReadyError` where the engine or the server fails, `UsageError` for a text or a
        tokenizer that does not suit, `JailError` from the judge.
        """
        missing = self.missing
        writes = "humaneval" in missing and not self._written()
        if writes or set(missing) - {"humaneval"}:
            with opened(self.options, self.record.row) as subject:
                self.keep(self.record.of_engine(subject.summary))
                self._measure(subject, missing, label)
                if writes:
                    self._write(subject, label)
        if "humaneval" in missing:
            self._judge(label)

    def keep(self, record: QualityRecord) -> None:
        """Writes it. Raises OSError."""
        record.save(self.path)
        self.record = record

    def _measure(self, subject: Subject, missing: Sequence[str], label: str) -> None:
        options = self.options
        if "speed" in missing and options.speed is not None:
            found = measure_speed(subject, options.speed, label)
            self.keep(self.record.with_part("speed", found))
        if "perplexity" in missing and options.perplexity is not None:
            assert self.material.text is not None
            found = measure_perplexity(subject, self.material.text, options.perplexity, label)
            self.keep(self.record.with_part("perplexity", found))

    def _write(self, subject: Subject, label: str) -> None:
        assert self.options.humaneval is not None
        write_programs(
            subject,
            self.material.problems,
            self.options.humaneval,
            self.options.batch,
            self._log,
            label,
        )

    def _judge(self, label: str) -> None:
        assert self.options.humaneval is not None and self.material.judge is not None
        found = judge_programs(
            self.material.judge,
            self.material.problems,
            self.options.humaneval,
            self.options.judge,
            self._log,
            label,
        )
        self.keep(self.record.with_part("humaneval", found))

    @property
    def _log(self) -> Log:
        return Log(self.path.with_suffix(".jsonl"))

    def _written(self) -> bool:
        assert self.options.humaneval is not None
        there = self._log.completions()
        wanted = tries(self.material.problems, self.options.humaneval)
        return all(of in there for of in wanted)
