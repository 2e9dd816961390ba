"""Requests read back from the files of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.errors import UsageError
from client.results.arrivals import Arrivals
from client.results.records import Outcome, Record


def read_rows(path: Path) -> tuple[Record, ...]:
    """The requests of a .jsonl file beside a record; none when there is no such file.

    Raises `UsageError` for a file that cannot be read, naming the line.
    """
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogatepass").splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    records = []
    for at, line in enumerate(lines, start=1):
        try:
            records.append(record_from_row(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}, line {at} is not the row of a request: {error!r}") from error
    return tuple(records)


def record_from_row(row: Mapping[str, Any]) -> Record:
    """A request from its row. Tokens without a gap between them are one message.

    Raises KeyError, TypeError or ValueError for what is no row.
    """
    arrivals = Arrivals.of([])
    if row["ttft"] is not None:
        arrivals = _arrivals(float(row["sent"]) + float(row["ttft"]), row["itls"])
    return Record(
        index=int(row["index"]),
        prompt_id=str(row["prompt_id"]),
        prompt_tokens=int(row["input_len"]),
        max_tokens=int(row["max_tokens"]),
        scheduled=row["scheduled"],
        sent=row["sent"],
        ended=row["ended"],
        arrivals=arrivals,
        outcome=Outcome(row["outcome"]),
        cause=row["cause"],
        finish=row.get("finish"),
        server_queue=row.get("server_queue"),
        server_prefill=row.get("server_prefill"),
    )


def records_from_vllm(document: Mapping[str, Any]) -> tuple[Record, ...]:
    """The requests of vLLM's document with --save-detailed; none of one without.

    It has no scheduled times and no names of prompts: a request counts as due when it was sent.
    Raises `UsageError` when its lists do not belong together.
    """
    names = ("input_lens", "output_lens", "ttfts", "itls")
    if not all(isinstance(document.get(name), list) for name in names):
        return ()
    columns = [document[name] for name in names]
    count = len(columns[0])
    starts = document.get("start_times") or [0.0] * count
    errors = document.get("errors") or [""] * count
    try:
        return tuple(
            _from_vllm(at, *values)
            for at, values in enumerate(zip(*columns, starts, errors, strict=True))
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"the lists of vLLM's detailed result do not fit: {error}") from error


def _from_vllm(
    index: int,
    input_len: int,
    output_len: int,
    ttft: float,
    itls: Sequence[float],
    start: float | None,
    error: str,
) -> Record:
    sent = 0.0 if start is None else float(start)
    completed = not error and bool(output_len)
    arrivals = _arrivals(sent + ttft, itls) if completed else Arrivals.of([])
    if arrivals:
        # A chunk may hold several tokens and it does not say which do: the last takes the rest.
        rest = output_len - int(arrivals.counts.sum())
        arrivals.counts[-1] = max(arrivals.counts[-1] + rest, 1)
    return Record(
        index=index,
        prompt_id=str(index),
        prompt_tokens=input_len,
        max_tokens=output_len,
        scheduled=sent,
        sent=sent,
        ended=float(arrivals.times[-1]) if arrivals else sent,
        arrivals=arrivals,
        outcome=Outcome.COMPLETED if completed else Outcome.FAILED,
        cause=error,
    )


def _arrivals(first: float, gaps: Sequence[float]) -> Arrivals:
    times = first + np.concatenate([[0.0], np.cumsum(np.array(gaps, dtype=np.float64))])
    return Arrivals(*np.unique(times, return_counts=True))
