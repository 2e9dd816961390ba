"""What became of each request of a run, read from its rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from client.errors import UsageError
from client.results.page.values import as_list, finite

COMPLETED = "completed"


@dataclass(frozen=True)
class Requests:
    """Rows as arrays of N requests in order of their schedule.

    Times in seconds from the start of the run, NaN where a request did not get there.
    `token_times`: of each request, when each of its tokens arrived.
    """

    ids: tuple[str, ...]  # [N]
    outcomes: tuple[str, ...]  # [N]
    causes: tuple[str, ...]  # [N]
    scheduled: np.ndarray  # [N]
    sent: np.ndarray  # [N]
    first: np.ndarray  # [N] the first token
    ended: np.ndarray  # [N]
    token_times: tuple[np.ndarray, ...]  # [N] of [tokens]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in vars(self).values()}
        if len(lengths) != 1:
            raise ValueError(f"as many values of each kind as requests; got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def done(self) -> np.ndarray:
        """[N] whether each request completed."""
        return np.array([outcome == COMPLETED for outcome in self.outcomes], dtype=bool)

    def ttfts(self) -> np.ndarray:
        """Milliseconds from sent to the first token, of completed requests."""
        values = (self.first - self.sent)[self.done] * 1e3
        return values[np.isfinite(values)]

    def gaps(self) -> list[np.ndarray]:
        """Milliseconds between the tokens of each completed request."""
        return [
            np.diff(times) * 1e3
            for times, done in zip(self.token_times, self.done, strict=True)
            if done
        ]

    def all_token_times(self) -> np.ndarray:
        """When each token of any request arrived."""
        return np.concatenate(self.token_times) if self.token_times else np.array([])

    def end(self) -> float:
        """When the last thing happened; 0 where nothing did."""
        times = [self.scheduled, self.sent, self.first, self.ended, self.all_token_times()]
        known = np.concatenate(times)
        known = known[np.isfinite(known)]
        return float(known.max()) if known.size else 0.0


def read_requests(path: Path) -> Requests:
    """Reads the `.jsonl` beside a record.

    Raises `UsageError` naming the line that is not a row, and OSError where there is no file.
    """
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for place, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_row(line, f"{path}:{place}"))
    return requests_from(rows)


def requests_from(rows: Sequence[Mapping[str, Any]]) -> Requests:
    """Rows as arrays. What a row lacks is taken as not known."""
    ordered = sorted(rows, key=_due)
    arrivals = [_token_times(row) for row in ordered]
    return Requests(
        ids=tuple(str(row.get("prompt_id", "")) for row in ordered),
        outcomes=tuple(str(row.get("outcome", "")) for row in ordered),
        causes=tuple(str(row.get("cause") or "") for row in ordered),
        scheduled=_times("scheduled", ordered),
        sent=_times("sent", ordered),
        first=np.array([times[0] if times.size else np.nan for times in arrivals]),
        ended=_times("ended", ordered),
        token_times=tuple(arrivals),
    )


def _row(line: str, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{place}: not a line of JSON: {error}; run the benchmark again"
        ) from error
    if not isinstance(value, Mapping):
        raise UsageError(f"{place}: a row is a JSON object; got {line.strip()[:40]}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _due(row: Mapping[str, Any]) -> float:
    known = (finite(row.get(name)) for name in ("scheduled", "sent"))
    return next((time for time in known if time is not None), float("inf"))


def _times(name: str, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    found = (finite(row.get(name)) for row in rows)
    return np.array([np.nan if time is None else time for time in found], dtype=np.float64)


def _token_times(row: Mapping[str, Any]) -> np.ndarray:
    sent, wait = finite(row.get("sent")), finite(row.get("ttft"))
    if sent is None or wait is None:
        return np.array([])
    gaps = [finite(gap) or 0.0 for gap in as_list(row.get("itls"))]
    return sent + wait + np.concatenate([[0.0], np.cumsum(gaps)])
