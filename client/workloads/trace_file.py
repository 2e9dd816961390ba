"""Traces of what a service was asked: when, how long, and what was shared."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from client.errors import UsageError

_CSV_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_FORMS = (
    f"a CSV file with the columns {','.join(_CSV_COLUMNS)}, or JSON lines with timestamp (ms), "
    "input_length, output_length and hash_ids"
)


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request. `time` in seconds after the first of the trace, lengths in tokens.

    Equal `blocks` in two rows are equal blocks of tokens of their prompts.
    """

    time: float
    inputs: int
    outputs: int
    blocks: tuple[int, ...] = ()


def read_trace(path: Path) -> list[TraceRow]:
    """The requests of an Azure CSV or a Mooncake JSONL trace, by time.

    The content decides which it is. Raises `UsageError` with the line that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the trace {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error
    lines = text.splitlines()
    read = _json_rows if text.lstrip().startswith("{") else _csv_rows
    rows = sorted(read(lines, path), key=lambda row: row.time)
    if not rows:
        raise UsageError(f"{path} holds no requests; a trace is {_FORMS}")
    first = rows[0].time
    return [TraceRow(row.time - first, row.inputs, row.outputs, row.blocks) for row in rows]


def _csv_rows(lines: list[str], path: Path) -> Iterator[TraceRow]:
    reader = csv.reader(lines)
    header = [name.strip().lower() for name in next(reader, [])]
    try:
        places = [header.index(name.lower()) for name in _CSV_COLUMNS]
    except ValueError:
        raise UsageError(
            f"{path} is no trace: a trace is {_FORMS}; it starts {lines[:1]}"
        ) from None
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        try:
            time, inputs, outputs = (cells[place].strip() for place in places)
            yield TraceRow(_seconds(time), _length(int(inputs)), _length(int(outputs)))
        except (ValueError, IndexError) as error:
            _refuse(path, reader.line_num, error)


def _json_rows(lines: list[str], path: Path) -> Iterator[TraceRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
            yield TraceRow(
                _number(row["timestamp"]) / 1000,
                _length(row["input_length"]),
                _length(row["output_length"]),
                tuple(_block(block) for block in row.get("hash_ids") or ()),
            )
        except KeyError as error:
            _refuse(path, number, f"no {error.args[0]}")
        except (ValueError, TypeError) as error:
            _refuse(path, number, error)


def _refuse(path: Path, line: int, problem: object) -> NoReturn:
    raise UsageError(f"{path}, line {line}: {problem}; a trace is {_FORMS}") from None


def _seconds(text: str) -> float:
    """Seconds of a date, or of a plain number."""
    try:
        return _number(float(text))
    except ValueError:
        moment = datetime.fromisoformat(text)
        # Without a zone as UTC: only differences matter, and there no hour is there twice.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"a time is a number; got {value!r}")
    return float(value)


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"a length is a whole number of tokens, 0 or more; got {value!r}")
    return value


def _block(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"hash_ids are whole numbers, 0 or more; got {value!r}")
    return value
