"""A command's report as a page: its tables as they are printed, its text, its charts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.hardware.chip import FIGURES, Chip
from client.errors import UsageError
from client.results.files import write_whole
from client.results.page.chart import Chart
from client.results.page.headline import Card
from client.results.page.page import Section, render_document
from client.results.page.tables import Cell, Table

_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(%|\*| \?| ms| us)?$")
_RULE = re.compile(r"\|[\s|:-]+\|$")
_SPLIT = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Banner:
    """As the client's page has it. kind: valid, invalid or open."""

    kind: str
    state: str
    label: str
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def write_page(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    banners: Sequence[Banner] = (),
    cards: Sequence[Card] = (),
    definitions: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes the page whole or not at all. UsageError without plotly or where it cannot be."""
    page = render_document(title, sections, banners=banners, cards=cards, definitions=definitions)
    try:
        write_whole(path, page)
    except OSError as error:
        raise UsageError(f"--html: cannot write {path}: {error.strerror}") from error


def page_table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> Table:
    """Text cells; those that are numbers stand to the right."""
    # A dash stands where the numbers of its column do.
    numeric = [
        any(_NUMBER.match(text.strip()) for text in column) for column in zip(*rows, strict=True)
    ]
    cells = tuple(
        tuple(_cell(text, right) for text, right in zip(row, numeric, strict=True)) for row in rows
    )
    return Table(title, tuple(headers), cells, note)


def tables_of(lines: Sequence[str], title: str) -> list[Table]:
    """The tables of Markdown, each named by the last line of text or heading before it."""
    found: list[Table] = []
    rows: list[list[str]] = []
    name = title
    for line in [*lines, ""]:
        if line.startswith("|"):
            if not _RULE.match(line):
                rows.append([_unescaped(cell) for cell in _SPLIT.split(line)[1:-1]])
            continue
        if rows:
            found.append(page_table(name, rows[0], rows[1:]))
            rows = []
        if line.strip():
            name = line.lstrip("# ").rstrip(":")
    return found


def text_of(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines before the first table."""
    first = next((at for at, line in enumerate(lines) if line.startswith("|")), len(lines))
    return tuple(line for line in lines[:first] if line.strip())


def list_of(lines: Sequence[str]) -> tuple[str, ...]:
    """The points of the lists in Markdown."""
    return tuple(line.removeprefix("- ") for line in lines if line.startswith("- "))


def chip_tables(chips: Sequence[Chip]) -> list[Table]:
    """Every figure of the chips with its source."""
    return [
        page_table(
            chip.title,
            ("Figure", "Value", "Source", "Read"),
            [
                (name, f"{figure.value:,g}{'' if figure.confirmed else ' ?'}", figure.source,
                 figure.date)
                for name in FIGURES
                if (figure := chip.figures.get(name)) is not None
            ],
            "? is not confirmed: one source, or an estimate.",
        )
        for chip in chips
    ]  # fmt: skip


def assumptions(chips: Sequence[Chip], parameters: Sequence[str], source: str) -> Section:
    """What the figures rest on: chips with sources, and efficiencies with their intervals."""
    fitted = tables_of(parameters, "Efficiencies")
    named = [Table("Efficiencies", each.head, each.rows, source) for each in fitted]
    return Section("assumptions", "Assumptions", tables=[*named, *chip_tables(chips)])


def section(
    name: str, title: str, charts: Sequence[Chart | None], tables: Sequence[Table] = ()
) -> Section:
    """Of the charts that there are."""
    return Section(name, title, [chart for chart in charts if chart is not None], tables)


def _cell(text: str, right: bool) -> Cell:
    plain = text.strip()
    return Cell(plain, style="number" if _NUMBER.match(plain) or (right and plain == "-") else "")


def _unescaped(cell: str) -> str:
    return cell.strip().replace("\\|", "|")
