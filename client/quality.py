"""`python -m client.quality`: what quantization costs in quality, beside speed and bytes."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from client.errors import NotReadyError, UsageError
from client.grading.filling import Material, RowRun
from client.grading.humaneval import controls
from client.grading.options import parse_quality
from client.grading.parts import bar
from client.grading.problems import Problem, read_problems
from client.grading.record import QualityRecord, check_same, load
from client.grading.row import Row
from client.grading.settings import QualityOptions
from client.grading.table import render
from client.grading.text import read_text
from client.judging.judge import Judge
from client.judging.process import JailError
from client.measure import say
from client.results.files import write_whole
from client.results.host import describe_host
from client.results.store import prepare
from client.sweeping.files import locked

COMPLETE, SOME_MISSING, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
TABLE = "table.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = parse_quality(words)
    try:
        if options.check_judge:
            return check_judge(options)
        return run(options, shlex.join(["python", "-m", "client.quality", *words]))
    except (UsageError, JailError, OSError) as error:
        say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted before anything was measured")
        return INTERRUPTED


def run(options: QualityOptions, command: str) -> int:
    """Measures what is missing in the folder, prints the table, returns the exit status.

    Raises `UsageError` for a folder that holds something else and for input that cannot be read,
    `JailError` where the judge fails, OSError when nothing can be written.
    """
    folder = options.folder
    prepare(folder)
    with locked(folder, "quality run"), ExitStack() as stack:
        rows = _rows(options, folder, command)
        material = _material(options, stack)
        runs = [RowRun(options, material, record, path) for path, record in rows]
        interrupted = _fill(runs, folder)
    print(_write_table(runs, folder), flush=True)
    if interrupted:
        say(f"interrupted; to go on: {command}")
        return INTERRUPTED
    say(f"records: {folder}")
    return SOME_MISSING if any(each.missing for each in runs) else COMPLETE


def check_judge(options: QualityOptions) -> int:
    """Prints what contains programs here and how two sets of programs fare; the exit status.

    Every problem's own solution has to pass, and no empty program.
    """
    problems = _problems(options)
    with _judge(options) as judge:
        print("\n".join(f"- {line}" for line in judge.containment.describe()), flush=True)
        with bar("judging", 2 * len(problems), "program") as shown:
            found = controls(judge, problems, options.judge.workers, lambda: shown.update(1))
    for name, passed, wanted in found:
        print(f"- {name}: {passed} of {len(problems)} passed, {wanted} should")
    right = all(passed == wanted for _, passed, wanted in found)
    return COMPLETE if right and judge.containment.whole else SOME_MISSING


def _rows(options: QualityOptions, folder: Path, command: str) -> list[tuple[Path, QualityRecord]]:
    rows = []
    for row in options.rows:
        path = folder / f"quality-{options.file_name}-{row.name}.json"
        record = _fresh(options, row, command)
        there = load(path)
        if there is not None:
            check_same(there, record, path)
            record = there.continued(record)
        rows.append((path, record))
    return rows


def _fresh(options: QualityOptions, row: Row, command: str) -> QualityRecord:
    return QualityRecord(
        command=command,
        date=datetime.now().strftime("%Y%m%d-%H%M%S"),
        model=options.model or "server",
        tokenizer=str(options.tokenizer or "the model's own"),
        row=row,
        settings=options.settings,
        host=describe_host() | _versions("jax", "numpy"),
        engine=None,
        parts={},
    )


def _versions(*packages: str) -> dict[str, Any]:
    """Of those that are there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _material(options: QualityOptions, stack: ExitStack) -> Material:
    """Read before any engine is opened: a mistake shows at once."""
    perplexity = options.perplexity
    text = None if perplexity is None else read_text(perplexity.text)
    if options.humaneval is None:
        return Material(text)
    problems = _problems(options)
    judge = stack.enter_context(_judge(options))
    say(f"programs are contained by: {judge.containment.summary}")
    return Material(text, problems, judge)


def _problems(options: QualityOptions) -> list[Problem]:
    first = options.humaneval.first if options.humaneval is not None else None
    return read_problems(options.problems)[:first]


def _judge(options: QualityOptions) -> Judge:
    return Judge(options.judge.limits, unsafe=options.judge.unsafe)


def _fill(runs: Sequence[RowRun], folder: Path) -> bool:
    """Fills one row after another; whether an interrupt came in between."""
    for number, each in enumerate(runs, start=1):
        label = f"[{number}/{len(runs)}] {each.record.row.name}"
        if not each.missing:
            say(f"{label}: done already")
            continue
        try:
            each.fill(label)
        except NotReadyError as error:
            each.keep(replace(each.record, failed=str(error)))
            say(f"{label}: failed: {error}")
        except KeyboardInterrupt:
            return True
        _write_table(runs, folder)
    return False


def _write_table(runs: Sequence[RowRun], folder: Path) -> str:
    begun = [each.record for each in runs if each.record.parts or each.record.failed]
    table = render(begun) if begun else "nothing was measured"
    write_whole(folder / TABLE, table + "\n")
    return table


if __name__ == "__main__":
    sys.exit(main())
