"""The parts of a row, each measured with a bar that says how long it still takes."""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tqdm import tqdm

from client.errors import NotReadyError
from client.grading import humaneval, speed
from client.grading.completion import Log
from client.grading.humaneval import HumanEvalSettings
from client.grading.problems import Problem
from client.grading.settings import JudgeSettings, PerplexitySettings
from client.grading.speed import SpeedSettings
from client.grading.subject import Subject
from client.grading.text import Text
from client.grading.windows import score
from client.judging.judge import Judge
from client.load.interrupt import Interrupt
from client.targets.target import Target
from client.workloads.lengths import LengthSettings
from client.workloads.limits import Limits
from client.workloads.prompt import Prompt
from client.workloads.synthetic import make_synthetic
from client.workloads.writer import Writer

_LOOKS_EVERY = 0.1  # seconds, for an interrupt
_PERIOD_IN_A_LOG = 10.0  # seconds; there every drawing stays as a line of its own


def bar(label: str, total: int, unit: str) -> "tqdm[Any]":
    """Progress with the time left, on the error stream."""
    period = 0.5 if sys.stderr.isatty() else _PERIOD_IN_A_LOG
    return tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True, mininterval=period)


def measure_perplexity(
    subject: Subject, text: Text, settings: PerplexitySettings, label: str
) -> dict[str, Any]:
    """Of the engine's own reading. Raises `NotReadyError` where its numbers are none."""
    assert subject.engine is not None, "only an engine in this process tells how likely a text is"
    tokens = text.tokens(subject.tokenizer)
    losses = subject.engine.losses(settings.sliding.window, settings.chunk)
    wanted = sum(window.scored for window in settings.sliding.over(len(tokens)))
    with bar(f"{label}: perplexity", wanted, "tok") as shown:
        found = score(tokens, settings.sliding, losses, shown.update)
        seconds = shown.format_dict["elapsed"]
    if not math.isfinite(found.perplexity):
        raise NotReadyError(f"the model's loss is {found.loss}: its numbers are broken")
    return {
        **text.source,
        "tokens": len(tokens),
        "window": settings.sliding.window,
        "stride": settings.sliding.stride,
        "chunk": settings.chunk,
        "scored_tokens": found.tokens,
        "loss": found.loss,
        "perplexity": found.perplexity,
        "seconds": round(seconds, 1),
    }


def measure_speed(subject: Subject, settings: SpeedSettings, label: str) -> dict[str, Any]:
    """Decode tokens a second with every slot at work."""
    target = subject.target(settings.batch, ignore_eos=True, temperature=0.0)
    prompts = _random_prompts(subject, settings)
    with bar(f"{label}: speed", settings.rounds + 1, "round") as shown:
        return _run(
            target,
            lambda: speed.measure(
                target, prompts, settings, subject.tokenizer, lambda: shown.update(1)
            ),
        )


def write_programs(
    subject: Subject,
    problems: Sequence[Problem],
    settings: HumanEvalSettings,
    at_once: int,
    log: Log,
    label: str,
) -> None:
    """Adds to the log what it does not hold yet."""
    target = subject.target(
        at_once,
        watched=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    tries = humaneval.tries(problems, settings)
    there = len(log.completions())
    with bar(f"{label}: writing", len(tries), "program") as shown:
        shown.update(there)
        _run(
            target,
            lambda: humaneval.write(
                target,
                problems,
                settings,
                subject.tokenizer,
                at_once,
                log,
                lambda: shown.update(1),
            ),
        )


def judge_programs(
    judge: Judge,
    problems: Sequence[Problem],
    settings: HumanEvalSettings,
    how: JudgeSettings,
    log: Log,
    label: str,
) -> dict[str, Any]:
    """Judges what has no verdict yet, and counts."""
    with bar(f"{label}: judging", len(humaneval.tries(problems, settings)), "program") as shown:
        shown.update(len(log.verdicts()))
        humaneval.judge_missing(
            judge, problems, settings, how.workers, log, lambda: shown.update(1)
        )
    found = humaneval.figures(problems, settings, log)
    return found | {"contained_by": list(judge.containment.held)}


def _random_prompts(subject: Subject, settings: SpeedSettings) -> tuple[Prompt, ...]:
    lengths = LengthSettings(inputs=settings.prompt, outputs=settings.tokens)
    writer = Writer(subject.tokenizer)
    return make_synthetic(lengths, None, Limits(), 0, settings.batch, 0, writer).prompts


def _run(target: Target, work: Callable[[], Awaitable[Any]]) -> Any:
    """Opens the target, does the work and closes it. Raises KeyboardInterrupt for an interrupt."""

    async def run() -> Any:
        watch = asyncio.create_task(_cancel_when(interrupt, asyncio.current_task()))
        try:
            await target.open(lambda line: tqdm.write(line, file=sys.stderr))
            try:
                return await work()
            finally:
                await target.close()
        finally:
            watch.cancel()

    # asyncio's own way only cancels, and Python 3.11's wait_for forgets that when what it waits for
    # is done in the same moment (https://github.com/python/cpython/issues/86296).
    with Interrupt() as interrupt:
        try:
            found = asyncio.run(run())
        except asyncio.CancelledError:
            if not interrupt.is_set:
                raise
    if interrupt.is_set:
        raise KeyboardInterrupt
    return found


async def _cancel_when(interrupt: Interrupt, task: "asyncio.Task[Any] | None") -> None:
    while not interrupt.is_set:
        await asyncio.sleep(_LOOKS_EVERY)
    assert task is not None, "runs in a task"
    task.cancel()
