"""`python -m capacity check`: numbers that cannot be right, with the arithmetic."""

import argparse
from collections import Counter
from pathlib import Path

from capacity.commands.calibrate import add_given, reader
from capacity.commands.options import add_chips, read_chips
from capacity.published.pages import MODELS, find_model
from capacity.sanity.finding import Finding
from capacity.sanity.own import findings_of
from capacity.sanity.published import check_page

NOTHING, FOUND = 0, 1


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "records", nargs="*", type=Path, metavar="RECORD",
        help="measured runs; without any, the published pages",
    )  # fmt: skip
    parser.add_argument("--page", help="one published page, such as 002")
    add_given(parser)
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints each finding; status 1 when there is one."""
    chips = read_chips(given)
    findings: list[Finding] = []
    if given.records:
        runs, notes = reader(given).read(given.records)
        checked = len(runs)
        for each in runs:
            findings += findings_of(each)
        print("".join(f"note: {note}\n" for note in notes), end="")
    else:
        models = [find_model(given.page)] if given.page else list(MODELS.values())
        checked = sum(len(model.page.rows) for model in models)
        for model in models:
            findings += check_page(model, chips)
    for finding in findings:
        print(f"- {finding}")
    kinds = Counter(finding.kind for finding in findings)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing found"
    print(f"{checked} rows: {counts}")
    return FOUND if findings else NOTHING
