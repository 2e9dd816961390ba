"""Markdown tables."""

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; pipes in cells are escaped."""
    lines = [_line(headers), _line(["---"] * len(headers))]
    return lines + [_line(row) for row in rows]


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits and thousands apart; a dash for None."""
    if value is None or value != value:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    decimals = max(digits - 1 - _magnitude(size), 0)
    return f"{value:,.{decimals}f}"


def fixed(value: float | None, decimals: int) -> str:
    """With so many decimals; a dash for None."""
    return "-" if value is None else f"{value:,.{decimals}f}"


def percent(share: float | None, decimals: int = 1) -> str:
    """With its sign."""
    return "-" if share is None else f"{100 * share:+.{decimals}f}%"


def _magnitude(size: float) -> int:
    return int(f"{size:e}".partition("e")[2])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
