"""Whether requests reach a server as was asked: rate and burstiness, on any number of workers.

`python -m benchmarks.arrivals [--rate 200] [--seconds 30] [--workers 1 2 3]`. The truth server logs
when it received each request. Rate: (requests - 1) / (last - first). Index of dispersion: variance
over mean of the counts in windows of 100 ms, of the scheduled times and of the server's; constant
arrivals have 0, Poisson 1, gamma 1 / burstiness.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine
from client.calibration.floor import read_truth, truth_server

WINDOW_SECONDS = 0.1
KINDS = {
    "constant": ["--arrivals", "constant"],
    "poisson": [],
    "gamma, burstiness 0.5": ["--burstiness", "0.5"],
}


def main() -> None:
    """Prints a row for each kind and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 3])
    options = parser.parse_args()
    print(f"{describe_machine()}, {options.rate:g} requests/s for {options.seconds:g} s\n")
    print("| arrivals | workers | rate at the server | off | dispersion scheduled | at the server "
          "| send lag p50 / p99, ms |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for kind, flags in KINDS.items():
        for workers in options.workers:
            print(_row(kind, flags, workers, options.rate, options.seconds), flush=True)


def _row(kind: str, flags: list[str], workers: int, rate: float, seconds: float) -> str:
    with (
        tempfile.TemporaryDirectory() as folder,
        truth_server("--ttft-ms", "5", "--itl-ms", "5") as ports,
    ):
        command = [
            *(sys.executable, "-m", "client.benchmark", "--backend", "openai", "--disable-tqdm"),
            *("--server", "127.0.0.1", "--port", str(ports["http"]), "--result-dir", folder),
            *("--dataset", "synthetic", "--random-input-len", "8", "--random-output-len", "2"),
            *("--request-rate", str(rate), "--duration", str(seconds), *flags),
            *("--workers", str(workers)),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=seconds + 120)
        received = np.sort([received for received, _ in read_truth(ports["http"]).values()])
        (path,) = Path(folder).glob("loadstone-*.json")
        record = json.loads(path.read_text())
        rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    scheduled = np.sort([row["scheduled"] for row in rows])
    reached = (len(received) - 1) / (received[-1] - received[0])
    asked = (len(scheduled) - 1) / (scheduled[-1] - scheduled[0])
    return (
        f"| {kind} | {workers} | {reached:.2f} | {reached / asked - 1:+.3%} "
        f"| {_dispersion(scheduled):.3f} | {_dispersion(received):.3f} "
        f"| {record['p50_send_lag_ms']:.2f} / {record['p99_send_lag_ms']:.2f} |"
    )


def _dispersion(times: np.ndarray) -> float:
    edges = np.arange(times[0], times[-1], WINDOW_SECONDS)
    counts, _ = np.histogram(times, edges)
    return float(counts.var() / counts.mean())


if __name__ == "__main__":
    main()
