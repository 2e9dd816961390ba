"""`python -m client.benchmark`: asks a server what a workload asks and prints a table."""

import sys
from collections.abc import Sequence
from pathlib import Path

from client.errors import NotReadyError, UsageError
from client.load.files import allow_many_files
from client.load.saturation import Probe, Search, SearchSettings
from client.measure import Reader, measure, say
from client.options import Options, parse_options
from client.results.run import Run
from client.results.store import prepare_files, save, save_curve
from client.results.table import render_curve, render_table
from client.workloads.build import build_workload
from tokenization import default_model_path, load_tokenizer

COMPLETED, SOME_FAILED, BAD_INPUT, INVALID, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parse_options(argv)
    try:
        return _run(options)
    except (UsageError, NotReadyError) as error:
        say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted before anything was measured")
        return INTERRUPTED


def _run(options: Options) -> int:
    prepare_files(options.results)
    reader = _load_tokenizer(options.tokenizer)
    allow_many_files()
    if options.search is not None:
        return _search(options, options.search, reader)
    run, path = _once(options, reader)
    return BAD_INPUT if path is None else _status(run)


def _once(options: Options, reader: Reader) -> tuple[Run, Path | None]:
    workload = build_workload(
        options.workload, reader.tokenizer, options.prompts, options.load.seed, count_sessions=True
    )
    say(workload.description)
    run = measure(options.for_sessions(workload.sessions), workload, reader)
    print(render_table(run), flush=True)
    try:
        path = save(run)
    except OSError as error:
        say(f"error: cannot write the record: {error}")
        return run, None
    say(f"record: {path}")
    return run, path


def _search(options: Options, settings: SearchSettings, reader: Reader) -> int:
    """Runs at one rate after another; what was measured is kept whatever comes."""
    search, runs = Search(settings), list[tuple[Run, Path]]()
    try:
        status = _probe(options, search, runs, reader)
    except (UsageError, NotReadyError) as error:
        say(f"error: {error}")
        status = BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted; the search ends here")
        status = INTERRUPTED
    if runs:
        print(render_curve(search, [run for run, _ in runs]), flush=True)
    return status


def _probe(options: Options, search: Search, runs: list[tuple[Run, Path]], reader: Reader) -> int:
    """Adds to the search and its runs until it is over; returns the status."""
    settings = search.settings
    while (rate := search.next_rate()) is not None:
        say(f"probing {rate:.3g} requests/s")
        at_rate = options.at_rate(rate, settings.requests(rate), len(runs))
        run, path = _once(at_rate, reader)
        if path is None:
            return BAD_INPUT
        if run.interrupted:
            raise KeyboardInterrupt
        runs.append((run, path))
        search.probes.append(_judge(run, rate, settings))
        try:
            # After every probe, so that nothing that comes later can lose it.
            curve = save_curve(search, runs)
        except OSError as error:
            say(f"error: cannot write the curve: {error}")
            return BAD_INPUT
        say(f"curve: {curve}")
    if search.limited:
        return INVALID
    return SOME_FAILED if search.highest is None else COMPLETED


def _judge(run: Run, rate: float, settings: SearchSettings) -> Probe:
    share = run.figures["goodput_share"] or 0.0
    ours = run.verdict == "INVALID"
    met = share >= settings.good_share and not ours
    return Probe(rate, met, run.figures["p99_e2el_ms"], ours)


def _load_tokenizer(path: Path | None) -> Reader:
    try:
        path = path or default_model_path()
        return Reader(load_tokenizer(path), path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the tokenizer: {error}") from error


def _status(run: Run) -> int:
    if run.interrupted:
        return INTERRUPTED
    if run.verdict == "INVALID":
        return INVALID
    return COMPLETED if run.complete else SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
