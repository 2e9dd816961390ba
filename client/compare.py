"""`python -m client.compare`: says what is better or worse between runs."""

import argparse
import json
import sys
from collections.abc import Sequence

from client.errors import UsageError
from client.parser import Parser
from client.results.comparison import Comparison, compare
from client.results.comparison_differences import check_repeats
from client.results.comparison_sides import Side, read_side, with_goodput
from client.results.comparison_table import MOST_SIDES, describe_comparisons, render_comparisons
from client.results.goodput import parse_goodput

NO_REGRESSION, REGRESSION, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(argv)
    try:
        comparisons = _compare(given)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    if given.json:
        print(json.dumps(describe_comparisons(comparisons, given.threshold), indent=2))
    else:
        print(render_comparisons(comparisons, given.threshold))
    worse = any(comparison.regressions for comparison in comparisons)
    return REGRESSION if worse else NO_REGRESSION


def _compare(given: argparse.Namespace) -> list[Comparison]:
    if not 0 <= given.threshold < 1:
        raise UsageError(f"--threshold: a share from 0 to below 1; got {given.threshold:g}")
    if not 2 <= len(given.sides) <= MOST_SIDES:
        raise UsageError(f"give 2 to {MOST_SIDES} sides to compare; got {len(given.sides)}")
    level = parse_goodput(given.goodput) if given.goodput else None
    sides = [_read(argument) for argument in given.sides]
    if level is not None:
        sides = [with_goodput(side, level) for side in sides]
    patterns = _patterns(given.metrics)
    return [compare(sides[0], other, patterns, given.threshold) for other in sides[1:]]


def _read(argument: str) -> Side:
    side = read_side(argument)
    if unlike := check_repeats(side):
        raise UsageError(
            f"{argument}: its {len(side.runs)} runs are not repeats of one setting "
            f"({'; '.join(unlike)}); give files or a pattern in quotes of one setting"
        )
    return side


def _patterns(text: str | None) -> list[str] | None:
    return None if text is None else [word for word in text.replace(",", " ").split() if word]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.compare",
        description="Compares runs with a baseline, the first: ratios with 95%% intervals.",
        epilog="Status: 0 nothing is shown to be worse, 1 something is (its interval leaves out 1 "
        "and the ratio is beyond the threshold), 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sides", nargs="+", metavar="SIDE",
        help="a record (loadstone-*.json, or a result of vLLM's or JetStream's benchmark), a "
        "folder of repeats, or a pattern in quotes",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", metavar="NAMES",
        help="figures to compare, with commas; * stands for any letters (default: the main ones)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, default=0.05,
        help="share of the baseline that a difference must exceed to matter (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--goodput", nargs="+", action="extend", metavar="NAME:MS",
        help="count goodput anew at this service level, such as ttft:500 tpot:50",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
