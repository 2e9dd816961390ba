"""Everything a quality run can be asked to do."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.grading.humaneval import HumanEvalSettings
from client.grading.row import Row
from client.grading.speed import SpeedSettings
from client.grading.text import TextSettings
from client.grading.windows import Sliding
from client.judging.limits import Limits
from client.targets.settings import TargetSettings

IN_PROCESS = "in-process"


@dataclass(frozen=True)
class PerplexitySettings:
    """Of which text, and how it is read; `chunk` in tokens, at most a window."""

    text: TextSettings
    sliding: Sliding
    chunk: int = 512

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise UsageError(f"--chunk: 1 or more; got {self.chunk}")


@dataclass(frozen=True)
class JudgeSettings:
    """`workers`: exams at once. `unsafe`: judge also where a protection is missing."""

    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    unsafe: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--judge-workers: 1 or more; got {self.workers}")


@dataclass(frozen=True)
class QualityOptions:
    """Everything a run was asked to do. What is None is left out.

    `engine`: options of `python -m server` that all rows share; empty for another server.
    `problems`: a file of them, else HumanEval's. `check_judge`: only that.
    """

    rows: tuple[Row, ...]
    target: TargetSettings
    engine: tuple[str, ...]
    batch: int
    model: str | None
    tokenizer: Path | None
    perplexity: PerplexitySettings | None
    humaneval: HumanEvalSettings | None
    speed: SpeedSettings | None
    judge: JudgeSettings
    problems: Path | None
    out: Path | None
    check_judge: bool

    def __post_init__(self) -> None:
        if self.check_judge:
            return
        if self.perplexity is None and self.humaneval is None:
            raise UsageError(
                "nothing to judge by: give --text FILE for perplexity, --humaneval for programs, "
                "or both"
            )
        if self.perplexity is not None and not self.local:
            raise UsageError(
                f"--text is for --backend {IN_PROCESS}: a server does not tell how likely a text is"
            )
        form = None if self.humaneval is None else self.humaneval.form
        if self.target.kind == "openai-chat" and form not in (None, "chat"):
            raise UsageError("--backend openai-chat: ask with --prompt-form chat")
        if self.batch < 1:
            raise UsageError(f"--batch-size: 1 or more; got {self.batch}")

    @property
    def local(self) -> bool:
        """Whether the engine runs in this process."""
        return self.target.kind == IN_PROCESS

    @property
    def parts(self) -> tuple[str, ...]:
        """What every row is to have, by the names of a record."""
        asked = {
            "speed": self.speed, "perplexity": self.perplexity, "humaneval": self.humaneval
        }  # fmt: skip
        return tuple(name for name, settings in asked.items() if settings is not None)

    @property
    def settings(self) -> dict[str, Any]:
        """What figures depend on, as JSON values; those of a part under its name."""
        target = self.target
        return {
            "backend": target.kind,
            "address": None if self.local else target.address,
            "model": self.model,
            "engine": list(self.engine),
            "batch": self.batch,
            "speed": asdict(self.speed) if self.speed else None,
            "perplexity": _perplexity(self.perplexity),
            "humaneval": self._humaneval(),
        }

    @property
    def folder(self) -> Path:
        """Where it goes; without --out, a folder of its own for each set of settings."""
        if self.out is not None:
            return self.out
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return Path("runs") / f"quality-{self.file_name}-{digest[:8]}"

    @property
    def file_name(self) -> str:
        """Of the model, for files."""
        name = Path(self.model or self.target.model or "server").name
        return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)

    def _humaneval(self) -> dict[str, Any] | None:
        if self.humaneval is None:
            return None
        problems = "HumanEval" if self.problems is None else str(self.problems)
        return self.humaneval.describe() | {
            "problem_set": problems,
            "limits": asdict(self.judge.limits),
        }


def _perplexity(settings: PerplexitySettings | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    text = asdict(settings.text)
    return {"text": text.pop("name"), **text, **asdict(settings.sliding), "chunk": settings.chunk}
