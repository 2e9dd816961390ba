"""One run, from a workload to its records."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from client.calibration.kept import load_calibration
from client.load.crew import run_shares
from client.load.history import as_asked, text_of
from client.load.progress import Progress
from client.load.share import Plan, Share, ShareResult, divide
from client.options import Options
from client.results.records import Outcome, Record, build_records
from client.results.run import Run, Warmup
from client.targets.exchange import OK
from client.workloads.prompt import Prompt
from client.workloads.selection import sample_by_length
from client.workloads.session import single
from client.workloads.workload import Workload
from tokenization import Tokenizer


@dataclass(frozen=True)
class Reader:
    """The tokenizer of the client, and where it came from."""

    tokenizer: Tokenizer
    path: Path


def measure(options: Options, workload: Workload, reader: Reader) -> Run:
    """Warms up, runs the workload, and puts together what came back.

    Raises `NotReadyError` when there is no ready server, KeyboardInterrupt before the run starts,
    `UsageError` for a load that the workload cannot be put under.
    """
    load, sessions = options.load, workload.sessions
    plan = load.plan(sessions)
    warmup = _warm_up(options, workload)
    text = options.results.save_outputs or load.real_history
    shares = divide(options.target, sessions, plan, load.workers, load.real_history, text)
    date = datetime.now()
    results = _run(options, shares, "requests")
    prompts = _prompts(options, workload, results, reader.tokenizer)
    count = partial(reader.tokenizer.encode, bos=False)
    records = build_records(prompts, results, count)
    return Run(
        options=options,
        workload=workload,
        records=_were_due(records, plan, workload, any(each.interrupted for each in results)),
        results=tuple(results),
        warmup=warmup,
        date=date,
        model=options.model or options.target.model or reader.path.stem,
        tokenizer=str(reader.path),
        calibration=load_calibration(options.results.calibration),
    )


def say(message: str) -> None:
    """A line for the person who waits."""
    print(message, file=sys.stderr, flush=True)


def _warm_up(options: Options, workload: Workload) -> Warmup:
    chosen = _warm_up_prompts(options, workload.prompts)
    if not chosen:
        return Warmup()
    plan = Plan((None,) * len(chosen), options.load.max_concurrency)
    target = replace(options.target, connections=1)
    shares = divide(target, [single(prompt) for prompt in chosen], plan, 1)
    (result,) = _run(options, shares, "warm-up")
    if result.interrupted:
        raise KeyboardInterrupt
    failed = sum(exchange.status != OK for exchange in result.exchanges)
    return Warmup(sent=len(chosen), failed=failed)


def _warm_up_prompts(options: Options, prompts: tuple[Prompt, ...]) -> Sequence[Prompt]:
    if options.load.num_warmups:
        # Always the same one: a prefix cache then knows no other before the run.
        return prompts[:1] * options.load.num_warmups
    mode = options.load.warmup_mode
    if mode == "none":
        return ()
    return sample_by_length(prompts) if mode == "sampled" else prompts


def _run(options: Options, shares: Sequence[Share], label: str) -> list[ShareResult]:
    total = sum(len(row) for share in shares for row in share.indices)
    with Progress(label, total, options.results.show_progress) as progress:
        if options.load.ray is not None and label != "warm-up":
            # Here and not above: ray is optional and takes seconds to import.
            from client.load.ray_crew import run_on_ray

            return run_on_ray(shares, options.load.ray, progress, say)
        return run_shares(shares, progress, say)


def _prompts(
    options: Options, workload: Workload, results: Sequence[ShareResult], tokenizer: Tokenizer
) -> Sequence[Prompt]:
    """What was asked; with real history later turns are known only now."""
    if not options.load.real_history:
        return workload.prompts
    said = {
        index: text_of(answer)
        for result in results
        for index, answer in zip(result.indices, result.answers, strict=True)
    }
    prompts: list[Prompt] = []
    for session in workload.sessions:
        answers = [said[len(prompts) + turn] for turn in range(len(session.turns))]
        prompts += as_asked(session, answers, tokenizer)
    return prompts


def _were_due(
    records: Sequence[Record], plan: Plan, workload: Workload, interrupted: bool
) -> tuple[Record, ...]:
    """Without what a run that ends by the clock never began: that was never part of it."""
    if plan.stop_after is None:
        return tuple(records)
    dues = [
        due for due, session in zip(plan.due, workload.sessions, strict=True) for _ in session.turns
    ]

    def missing(record: Record) -> bool:
        due = dues[record.index]
        return interrupted and due is not None and due < (plan.stop_after or 0.0)

    return tuple(
        record for record in records if record.outcome is not Outcome.NOT_SENT or missing(record)
    )
