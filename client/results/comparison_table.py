"""A comparison as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from client.results.comparison import Comparison, Line
from client.results.comparison_sides import Side

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WIDTHS = (34, 12, 12, 9, 17, 9)
MOST_SIDES = len(_LETTERS)


def render_comparisons(comparisons: Sequence[Comparison], threshold: float) -> str:
    """A table for each side against the baseline, and what is worse at the end."""
    sides = [comparisons[0].baseline, *(each.other for each in comparisons)]
    lines = [_legend(letter, side) for letter, side in zip(_LETTERS, sides, strict=False)]
    for letter, comparison in zip(_LETTERS[1:], comparisons, strict=False):
        lines += ["", *_table(letter, comparison)]
    return "\n".join([*lines, "", *_summary(comparisons, threshold)])


def describe_comparisons(comparisons: Sequence[Comparison], threshold: float) -> dict[str, Any]:
    """The same as a JSON document."""
    return {
        "format": "loadstone-comparison-1",
        "threshold": threshold,
        "baseline": _side(comparisons[0].baseline),
        "comparisons": [
            {
                **_side(each.other),
                "metrics": [_entry(line) for line in each.lines],
                "regressions": each.regressions,
                "warnings": list(each.warnings),
                "notes": list(each.notes),
            }
            for each in comparisons
        ],
    }


def _table(letter: str, comparison: Comparison) -> list[str]:
    return [
        _cells(["metric", "A", letter, f"{letter}/A", "95% interval", "verdict"]),
        *(_row(line) for line in comparison.lines),
        *(f"! {warning}" for warning in comparison.warnings),
        *(f"- {note}" for note in comparison.notes),
    ]


def _row(line: Line) -> str:
    ratio = "-" if line.ratio is None else f"{line.ratio:.3f}"
    interval = "-"
    if line.interval is not None:
        interval = f"{line.interval[0]:.3f} - {line.interval[1]:.3f}"
    values = [_number(line.baseline), _number(line.other)]
    return _cells([line.metric, *values, ratio, interval, line.verdict.value])


def _cells(texts: Sequence[str]) -> str:
    first, *others = texts
    cells = (f"{text:>{width}}" for text, width in zip(others, _WIDTHS[1:], strict=True))
    return f"{first:<{_WIDTHS[0]}}" + " ".join(cells)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.5g}"


def _legend(letter: str, side: Side) -> str:
    runs = "1 run" if len(side.runs) == 1 else f"mean of {len(side.runs)} runs"
    return f"{letter}  {side.label} ({runs}){', the baseline' if letter == 'A' else ''}"


def _summary(comparisons: Sequence[Comparison], threshold: float) -> list[str]:
    lines = [
        f"{letter} is worse than A: {', '.join(each.regressions)}"
        for letter, each in zip(_LETTERS[1:], comparisons, strict=False)
        if each.regressions
    ]
    return lines or [f"Nothing is shown to be worse by more than {threshold:.1%}."]


def _side(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "runs": [str(run.path) for run in side.runs],
        "source": sorted({run.source for run in side.runs}),
    }


def _entry(line: Line) -> dict[str, Any]:
    return {
        "metric": line.metric,
        "baseline": line.baseline,
        "other": line.other,
        "ratio": line.ratio,
        "interval": None if line.interval is None else list(line.interval),
        "interval_from": line.interval_from,
        "verdict": line.verdict.value,
    }
