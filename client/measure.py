"""One run, from a workload to its records."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from client.calibration.kept import load_calibration
from client.load.crew import run_shares
from client.load.progress import Progress
from client.load.share import Plan, Share, ShareResult, divide
from client.options import Options
from client.results.records import build_records
from client.results.run import Run, Warmup
from client.targets.exchange import OK
from client.workloads.selection import sample_by_length
from client.workloads.session import Session, single
from client.workloads.workload import Workload
from tokenization import Tokenizer


@dataclass(frozen=True)
class Reader:
    """The tokenizer of the client, and where it came from."""

    tokenizer: Tokenizer
    path: Path


def measure(options: Options, workload: Workload, reader: Reader) -> Run:
    """Warms up, runs the workload, and puts together what came back.

    Raises `NotReadyError` when there is no ready server, KeyboardInterrupt before the run starts.
    """
    load, sessions = options.load, workload.sessions
    warmup = _warm_up(options, workload)
    shares = divide(options.target, sessions, load.plan(sessions), load.workers, load.real_history)
    date = datetime.now()
    results = _run(options, shares, "requests")
    count = partial(reader.tokenizer.encode, bos=False)
    records = build_records(workload.prompts, results, count)
    if load.duration is not None and not any(result.interrupted for result in results):
        # What was not begun in time was never part of the run.
        records = tuple(record for record in records if record.scheduled is not None)
    return Run(
        options=options,
        workload=workload,
        records=records,
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
    mode = options.load.warmup_mode
    if mode == "none":
        return Warmup()
    prompts = workload.prompts
    chosen = sample_by_length(prompts) if mode == "sampled" else prompts
    sessions: tuple[Session, ...] = tuple(single(prompt) for prompt in chosen)
    plan = Plan((None,) * len(sessions), options.load.max_concurrency)
    target = replace(options.target, connections=1)
    (result,) = _run(options, divide(target, sessions, plan, 1), "warm-up")
    if result.interrupted:
        raise KeyboardInterrupt
    failed = sum(exchange.status != OK for exchange in result.exchanges)
    return Warmup(sent=len(sessions), failed=failed)


def _run(options: Options, shares: Sequence[Share], label: str) -> list[ShareResult]:
    total = sum(len(row) for share in shares for row in share.indices)
    with Progress(label, total, options.results.show_progress) as progress:
        if options.load.ray is not None and label != "warm-up":
            # Here and not above: ray is optional and takes seconds to import.
            from client.load.ray_crew import run_on_ray

            return run_on_ray(shares, options.load.ray, progress, say)
        return run_shares(shares, progress, say)
