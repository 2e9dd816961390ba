"""`python -m client.benchmark`: replays prompts against a server and prints a table."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from client.errors import NotReadyError, UsageError
from client.load.arrivals import Arrivals, arrival_times
from client.load.progress import Progress
from client.load.replay import Replay, replay
from client.options import Options, parse_options
from client.results.records import build_records
from client.results.run import Run, Warmup
from client.results.store import prepare, save
from client.results.table import render_table
from client.targets.exchange import OK
from client.targets.jetstream import JetStreamTarget
from client.targets.target import Target
from client.workloads.hub import load_hub_sharegpt
from client.workloads.prompt import Prompt
from client.workloads.selection import Selection, sample_by_length, select
from client.workloads.sharegpt import prompts_from, read_sharegpt
from tokenization import Tokenizer, default_model_path, load_tokenizer

COMPLETED, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parse_options(argv)
    try:
        return _run(options)
    except (UsageError, NotReadyError) as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted before anything was measured")
        return INTERRUPTED


def _run(options: Options) -> int:
    prepare(options.result_dir)
    if options.request_outputs_path is not None:
        prepare(options.request_outputs_path.parent)
    tokenizer, path = _load_tokenizer(options.tokenizer)
    selection = _load_prompts(options, tokenizer)
    _say(selection.describe())
    run = asyncio.run(_measure(options, selection, tokenizer, path))
    print(render_table(run), flush=True)
    try:
        _say(f"record: {save(run)}")
    except OSError as error:
        _say(f"error: cannot write the record: {error}")
        return BAD_INPUT
    if run.interrupted:
        return INTERRUPTED
    return COMPLETED if run.complete else SOME_FAILED


def _load_tokenizer(path: Path | None) -> tuple[Tokenizer, Path]:
    try:
        path = path or default_model_path()
        return load_tokenizer(path), path
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the tokenizer: {error}") from error


def _load_prompts(options: Options, tokenizer: Tokenizer) -> Selection:
    if options.dataset == "sharegpt-hub":
        conversations = load_hub_sharegpt()
    else:
        conversations = read_sharegpt(options.dataset_path or _sample_path())
    read = partial(prompts_from, rules=options.rules, tokenizer=tokenizer)
    return select(conversations, read, options.num_prompts, options.seed, options.repeat)


def _sample_path() -> Path:
    return Path(__file__).resolve().parents[1] / "datasets" / "sample_sharegpt.json"


async def _measure(options: Options, selection: Selection, tokenizer: Tokenizer, path: Path) -> Run:
    prompts, target = selection.prompts, JetStreamTarget(options.target)
    try:
        await target.open(_say)
        warmup = await _warm_up(options, target, prompts)
        arrivals = Arrivals(rate=options.request_rate)
        offsets = arrival_times(arrivals, len(prompts), None, options.seed).tolist()
        date = datetime.now()
        measured = await _replay(options, target, prompts, offsets, "requests")
    finally:
        await target.close()
    answers = [target.read(exchange) for exchange in measured.exchanges]
    count = partial(tokenizer.encode, bos=False)
    return Run(
        options=options,
        selection=selection,
        records=build_records(prompts, measured.exchanges, answers, measured.start, count),
        warmup=warmup,
        interrupted=measured.interrupted,
        elapsed=measured.end - measured.start,
        cpu=measured.cpu,
        date=date,
        model=options.model or path.stem,
        tokenizer=str(path),
    )


async def _warm_up(options: Options, target: Target, prompts: Sequence[Prompt]) -> Warmup:
    if options.warmup_mode == "none":
        return Warmup()
    chosen = sample_by_length(prompts) if options.warmup_mode == "sampled" else prompts
    warmed = await _replay(options, target, chosen, [0.0] * len(chosen), "warm-up")
    if warmed.interrupted:
        raise KeyboardInterrupt
    failed = sum(exchange.status != OK for exchange in warmed.exchanges)
    return Warmup(sent=len(chosen), failed=failed)


async def _replay(
    options: Options,
    target: Target,
    prompts: Sequence[Prompt],
    offsets: Sequence[float],
    label: str,
) -> Replay:
    progress = Progress(label, options.show_progress)
    return await replay(target, prompts, offsets, options.target.request_timeout, progress)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
