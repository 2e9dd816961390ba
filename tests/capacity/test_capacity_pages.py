"""Pages: in a real browser, with the figures that were printed."""

from pathlib import Path

import pytest

from capacity.__main__ import OK, main
from capacity.pages.document import tables_of
from tests.client.browser import open_page

MODEL = ("--model", "llama2-7b")
V5E = (*MODEL, "--slice", "v5e-8", "--quantize", "int8")
RATE = ("--rate", "20", "--goodput", "ttft:900", "tpot:60")
COMMANDS = {
    "simulate": (*V5E, *RATE, "--requests", "300", "--replicas", "1,2", "--batch-size", "32"),
    "plan": (*MODEL, "--slice", "v5e-4,v5e-1", *RATE, "--batch-size", "32", "--top", "1"),
    "fit": (*V5E,),
    "estimate": (*V5E,),
    "table": ("--page", "002"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_shows_what_was_printed_and_where_it_comes_from(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    assert main((command, *COMMANDS[command], "--html", str(path))) == OK
    printed = tables_of(capsys.readouterr().out.splitlines(), "first")
    page = open_page(path)
    assert page.errors == ""
    assert page.charts and all(each.rendered and each.shapes for each in page.charts.values())
    assert "Google Cloud TPU documentation, TPU v5e" in page.text
    for table in printed:
        for row in table.rows:
            for cell in row:
                assert " ".join(cell.shown.split()) in page.text


def test_tables_are_read_from_markdown() -> None:
    lines = ["# Head", "", "Named:", "| a | b |", "| --- | --- |", r"| x\|y | 1,000 |", "", "end"]
    (table,) = tables_of(lines, "none")
    assert (table.title, table.head) == ("Named", ("a", "b"))
    assert [cell.shown for cell in table.rows[0]] == ["x|y", "1,000"]
    assert [cell.style for cell in table.rows[0]] == ["", "number"]
