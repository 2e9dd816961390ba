"""Tables in Markdown."""

from collections.abc import Sequence

NONE = "-"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [row(head), row(["---"] * len(head)), *map(row, rows)]


def row(values: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(values)} |"


def number(value: float | None, digits: int, separator: str = ",") -> str:
    """A number with thousands apart; a dash without one."""
    return NONE if value is None else f"{value:{separator}.{digits}f}"


def plain(text: str) -> str:
    """Text that breaks no table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")
