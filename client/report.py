"""`python -m client.report`: makes one HTML page of records, to send and to read anywhere."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from client.errors import UsageError
from client.parser import Parser
from client.results.page.page import render_page
from client.results.page.sources import Sources, read_sources

MADE, BAD_INPUT = 0, 2
_TITLE = "Loadstone report"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(argv)
    try:
        size = make_page(given.records, given.output, given.title)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(f"page: {given.output} ({size / 1e6:.1f} MB)")
    return MADE


def make_page(records: Sequence[Path], output: Path, title: str | None = None) -> int:
    """Writes the page of some records, whole or not at all; returns its bytes.

    Raises `UsageError` for records that cannot be read, an output that cannot be written, or a
    library that is not there.
    """
    sources = read_sources(records)
    _check_output(output, records)
    return _write(output, render_page(sources, title or _title(sources)))


def _check_output(output: Path, records: Sequence[Path]) -> None:
    inputs = {
        path.resolve() for record in records for path in (record, record.with_suffix(".jsonl"))
    }
    if output.resolve() in inputs or output.suffix in (".json", ".jsonl"):
        raise UsageError(f"-o {output}: looks like a record; give the page another name, as x.html")


def _title(sources: Sources) -> str:
    labels = [run.label for run in sources.runs]
    labels += [each.label for each in (*sources.curves, *sources.sweeps, *sources.offlines)]
    if len(labels) > 2:
        return f"{_TITLE}: {len(labels)} records"
    return f"{_TITLE}: {' against '.join(labels)}"


def _write(path: Path, page: str) -> int:
    """Writes the page whole or not at all; returns its bytes."""
    # Half of a surrogate pair, which JSON can hold, has no form in UTF-8.
    content = page.encode("utf-8", errors="replace")
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".", suffix=".part", delete=False
        ) as file:
            part = Path(file.name)
            try:
                file.write(content)
            except OSError:
                part.unlink()
                raise
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give another -o") from error
    return len(content)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.report",
        description="Makes one HTML page of runs, rate curves, sweeps, engines without a server "
        "and records of quality. The page holds all it needs and works offline. Several runs are "
        "laid over each other.",
        epilog="Status: 0 made, 2 bad input. Needs plotly: pip install 'loadstone[report]'.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RUN",
        help="a record (loadstone-*.json; its rows are read from beside it), or a folder of them",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"),
        help="where the page goes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--title", help="of the page (default: named after the runs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
