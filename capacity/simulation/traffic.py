"""When requests come, and how long they are."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capacity.serving.lengths import Lengths
from client.errors import UsageError
from client.load.arrivals import Arrivals, arrival_times
from client.workloads.trace_file import read_trace

_ROWS = '"input_len"'


@dataclass(frozen=True)
class Traffic:
    """times: seconds from the start, in order. inputs, outputs: tokens. `source`: in words."""

    times: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    source: str

    def __post_init__(self) -> None:
        if not len(self.times):
            raise UsageError(f"{self.source}: no requests to simulate")
        if min(self.inputs.min(), self.outputs.min()) < 1:
            raise UsageError(f"{self.source}: a prompt or an answer is below 1 token")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def rate(self) -> float:
        """Requests a second over the whole; infinite when all are there at the start."""
        span = float(self.times[-1] - self.times[0])
        return (len(self) - 1) / span if span else float("inf")

    @property
    def lengths(self) -> Lengths:
        """Without the times."""
        return Lengths(self.inputs, self.outputs, self.source)

    def faster(self, factor: float) -> "Traffic":
        """The same requests, so many times as fast."""
        if not 0 < factor < float("inf"):
            raise UsageError(f"--trace-speed: a factor above 0; got {factor:g}")
        return replace(self, times=self.times / factor)

    def first(self, count: int) -> "Traffic":
        """The first `count` requests."""
        return self._chosen(slice(count))

    def within(self, positions: int | None) -> tuple["Traffic", int]:
        """Without prompts longer than the positions that a model learned, and how many these are;
        answers end with the last position."""
        if positions is None:
            return self, 0
        fits = self.inputs <= positions
        left = self._chosen(fits)
        shorter = np.minimum(left.outputs, positions - left.inputs + 1)
        return replace(left, outputs=shorter), int((~fits).sum())

    def _chosen(self, rows: slice | np.ndarray) -> "Traffic":
        return Traffic(self.times[rows], self.inputs[rows], self.outputs[rows], self.source)


def at_rate(lengths: Lengths, arrivals: Arrivals, count: int, seed: int) -> Traffic:
    """`count` requests drawn from the lengths, as `client.benchmark` times them."""
    if count < 1:
        raise UsageError(f"--requests: 1 or more; got {count}")
    drawn = lengths.draw(count, seed)
    times = arrival_times(arrivals, count, None, seed)
    how = "all at once" if arrivals.at_once else f"{arrivals.rate:g} requests/s, {arrivals.process}"
    if arrivals.process == "gamma":
        how += f" with burstiness {arrivals.burstiness:g}"
    return Traffic(times, drawn.inputs, drawn.outputs, f"{count:,} requests, {how}; {lengths}")


def read_traffic(path: Path) -> Traffic:
    """An Azure or Mooncake trace, or a record of client.benchmark (its .json or its rows).

    Requests without a prompt or an answer are left out. UsageError for what cannot be read.
    """
    rows = path.with_suffix(".jsonl") if path.suffix == ".json" else path
    if not rows.exists():
        raise UsageError(
            f"--trace: there is no {rows}; a trace is an Azure CSV, Mooncake JSON lines, or a "
            "record of client.benchmark with its rows beside it"
        )
    found = _of_rows(rows) if _is_rows(rows) else _of_trace(rows)
    if not len(found):
        raise UsageError(f"--trace: {path.name} has no request with a prompt and an answer")
    inputs, outputs = found[:, 1].astype(np.int64), found[:, 2].astype(np.int64)
    source = f"{len(found):,} requests of {path.name}"
    return Traffic(found[:, 0] - found[0, 0], inputs, outputs, source)


def _of_trace(path: Path) -> np.ndarray:
    rows = [(row.time, row.inputs, row.outputs) for row in read_trace(path)]
    found = np.array(rows, dtype=np.float64)
    return found[(found[:, 1] > 0) & (found[:, 2] > 0)]


def _is_rows(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return path.suffix == ".jsonl" and _ROWS in file.readline()
    except OSError as error:
        raise UsageError(f"--trace: cannot read {path}: {error.strerror}") from error


def _of_rows(path: Path) -> np.ndarray:
    """Completed requests by the time they were sent."""
    try:
        requests = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = [
            (float(each["sent"]), int(each["input_len"]), int(each["output_len"]))
            for each in requests
            if each["outcome"] == "completed"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--trace: {path}: not the rows of a run: {error!r}") from error
    return np.array(sorted(found), dtype=np.float64).reshape(-1, 3)
