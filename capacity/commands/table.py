"""`python -m capacity table`: estimated, measured and error, for published pages and own runs."""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from capacity.commands.calibrate import add_given
from capacity.commands.calibrate import run as run_calibration
from capacity.commands.options import add_chips, add_page, read_chips
from capacity.hardware.chip import Chip
from capacity.pages.compared import write_compared
from capacity.published.model import GroupResult, PageModel, evaluate
from capacity.published.pages import MODELS, find_model
from capacity.sanity.published import doubts
from capacity.tables.comparison import DEFINITIONS, OURS
from capacity.tables.page import render
from client.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "records", nargs="*", type=Path, metavar="RECORD", help="own runs instead of a page"
    )
    parser.add_argument("--page", help=f"{', '.join(MODELS)}, a page's name, or all")
    parser.add_argument(
        "--definition", choices=DEFINITIONS, default=OURS,
        help="page: the page's own units and error; ours: defined units, errors relative to the "
        "measurement (default)",
    )  # fmt: skip
    add_given(parser)
    add_page(parser)
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints Markdown."""
    if given.records:
        if given.page is not None:
            raise UsageError("give records or --page, not both")
        if given.html is not None:
            raise UsageError("--html is for --page; client.report makes a page of records")
        given.steps = False
        given.out = given.group = None
        return run_calibration(given)
    if given.page is None:
        raise UsageError(f"give --page ({', '.join(MODELS)} or all), or records of own runs")
    models = list(MODELS.values()) if given.page == "all" else [find_model(given.page)]
    if given.page == "all":
        print("\n".join(_header(given.definition)))
    chips = read_chips(given)
    pages = _pages(models, chips, given.definition)
    print("\n".join(line for _, _, lines in pages for line in lines).rstrip())
    if given.html is not None:
        write_compared(given.html, pages, chips)
    return 0


def _header(definition: str) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("loadstone", "numpy", "scipy"))
    more = "" if definition == OURS else f" --definition {definition}"
    return [
        "# Published pages: estimated, measured, error",
        "",
        f"`python -m capacity table --page all{more}`, {date.today().isoformat()}, {versions}.",
        "",
        "Every estimate is of a fit that has not seen its row; errors are relative to the "
        "measurement unless the page's definition is asked for. [capacity.md](../capacity.md) "
        "explains the model.",
        "",
    ]


def _pages(
    models: Sequence[PageModel], chips: dict[str, Chip], definition: str
) -> list[tuple[PageModel, Sequence[GroupResult], list[str]]]:
    found: list[tuple[PageModel, Sequence[GroupResult], list[str]]] = []
    for model in models:
        print(f"page {model.number}: {len(model.page.rows)} rows", file=sys.stderr, flush=True)
        groups = evaluate(model, chips, doubts(model, chips))
        found.append((model, groups, render(model, groups, chips, definition)))
    return found
