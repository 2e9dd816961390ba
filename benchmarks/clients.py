"""Load generators against a server that knows the truth: error and cost, all in one run.

`python -m benchmarks.clients [--workloads C D] [--clients ours,ours-grpc,..]`. The truth server
(client/calibration/truth_server.py) runs on the last core, each client on the first. Workload C:
512 streams in flight, 64 tokens each, first token after 100 ms, then one every 25 ms (20,480
tokens/s while all stream); D: 1,000 streams, one token every 20 ms (50,000 tokens/s). Error:
quantiles reported less the same quantiles of the truth. CPU: processor time of the client's whole
process tree for each 1,000 tokens, as the difference between a long and a short run, so that
start-up counts for none; "while measuring" is what our client says of itself. Clients of others
live in environments of their own (`make benchmark-clients`); one that is not there is left out, and
the table says so.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.client_kinds import Runner, Seen, Workload
from benchmarks.machine import describe_machine, on_cores
from benchmarks.other_clients import OTHERS
from client.calibration.floor import truth_server

LIMIT_SECONDS = 300.0


WORKLOADS = {
    "A": Workload(64, 32, 0.0, 0.0, (16, 64)),
    "C": Workload(512, 64, 0.1, 0.025, (1, 5)),
    "D": Workload(1000, 64, 0.1, 0.02, (1, 5)),
}


@dataclass(frozen=True)
class Outcome:
    """One client on one workload: its report, the truth, and its cost."""

    seen: Seen
    true: Seen
    cpu_ms_per_1000: float


def ours(backend: str, *options: str) -> Runner:
    """Our own client, as its users start it."""

    def run(workload: Workload, requests: int, ports: dict[str, int], folder: Path) -> Seen:
        port = ports["grpc" if backend == "jetstream" else "http"]
        command = [
            *(sys.executable, "-m", "client.benchmark", "--backend", backend, "--port", str(port)),
            *("--server", "127.0.0.1", "--dataset", "synthetic", "--random-input-len", "16"),
            *("--random-output-len", str(workload.tokens), "--num-prompts", str(requests)),
            *("--max-concurrency", str(workload.streams), "--result-dir", str(folder)),
            *("--disable-tqdm", *options),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if done.returncode not in (0, 3):  # 3: it says itself that it was the limit
            raise RuntimeError(done.stderr[-2000:])
        (path,) = folder.glob("loadstone-*.json")
        record = json.loads(path.read_text())
        return Seen(
            record["p50_ttft_ms"], record["p99_ttft_ms"], record["p99_itl_ms"],
            record["output_throughput"],
            record["client_cpu_seconds"] / record["total_output_tokens"] * 1e6,
        )  # fmt: skip

    return run


CLIENTS: dict[str, Runner] = {
    "ours, HTTP": ours("openai"),
    "ours, HTTP, 2 workers": ours("openai", "--workers", "2"),
    "ours, gRPC": ours("jetstream"),
    "ours, gRPC by grpc.aio": ours("jetstream", "--transport", "grpcio"),
    **OTHERS,
}


def main() -> None:
    """Prints a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=["C"])
    parser.add_argument("--clients", default=",".join(CLIENTS), help="parts of names, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    words = [word.strip().lower() for word in options.clients.split(",")]
    chosen = {name: run for name, run in CLIENTS.items() if any(w in name.lower() for w in words)}
    print(f"{describe_machine()}, median of {options.rounds} rounds\n")
    for name in options.workloads:
        _table(name, WORKLOADS[name], chosen, options.rounds)


def _table(name: str, workload: Workload, chosen: dict[str, Runner], rounds: int) -> None:
    found: dict[str, list[Outcome]] = {client: [] for client in chosen}
    missing: dict[str, str] = {}
    # In turns, so that a slow minute of the machine meets them all.
    for _ in range(rounds):
        for client, run in chosen.items():
            if client in missing:
                continue
            try:
                found[client].append(_measure(workload, run))
            except (FileNotFoundError, RuntimeError, subprocess.TimeoutExpired) as error:
                missing[client] = str(error)
    print(f"Workload {name}: {workload.streams} streams of {workload.tokens} tokens\n")
    print("| client | tokens/s | CPU ms / 1,000 tokens | while measuring | true TTFT p50 / p99 "
          "| error p50 / p99, ms | ITL p99 error, ms |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for client, outcomes in found.items():
        if outcomes:
            print(_row(client, outcomes), flush=True)
    for client, reason in missing.items():
        print(f"\n{client}: not measured: {reason.strip().splitlines()[-1][:200]}")
    print()


def _row(client: str, outcomes: Sequence[Outcome]) -> str:
    def median(of: Callable[[Outcome], float | None]) -> float | None:
        values = [value for value in map(of, outcomes) if value is not None]
        return statistics.median(values) if values else None

    def off(name: str) -> str:
        def error(outcome: Outcome) -> float | None:
            seen = getattr(outcome.seen, name)
            return None if seen is None else seen - getattr(outcome.true, name)

        value = median(error)
        return "-" if value is None else f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2f}"

    measuring = median(lambda o: o.seen.cpu)
    true50, true99 = median(lambda o: o.true.ttft_p50), median(lambda o: o.true.ttft_p99)
    return (
        f"| {client} | {median(lambda o: o.true.tokens_per_s):,.0f} "
        f"| {median(lambda o: o.cpu_ms_per_1000):.1f} "
        f"| {'-' if measuring is None else f'{measuring:.1f}'} | {true50:.0f} / {true99:.0f} "
        f"| {off('ttft_p50')} / {off('ttft_p99')} | {off('itl_p99')} |"
    )


def _measure(workload: Workload, run: Runner) -> Outcome:
    cores = sorted(os.sched_getaffinity(0))
    cpu, tokens = [], []
    for length in (0, 1):
        options = ["--ttft-ms", str(workload.ttft * 1e3), "--itl-ms", str(workload.itl * 1e3)]
        with (
            tempfile.TemporaryDirectory() as folder,
            truth_server(*options, core=cores[-1]) as ports,
        ):
            before = _children_seconds()
            with on_cores(cores[:1]):
                seen = run(workload, workload.requests(length), ports, Path(folder))
            cpu.append(_children_seconds() - before)
            true, count = _truth(_told(ports["http"]), workload.tokens)
            tokens.append(count)
    cost = (cpu[1] - cpu[0]) / (tokens[1] - tokens[0]) * 1e6
    return Outcome(seen, true, cost)


def _told(port: int) -> list[tuple[float, list[float]]]:
    """(received, sends) of each request; other clients' prompts need not differ."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/truth", timeout=60) as page:
        lines = page.read().decode().splitlines()
    return [(received, sends) for _, received, sends in map(json.loads, lines)]


def _truth(told: list[tuple[float, list[float]]], tokens: int) -> tuple[Seen, int]:
    whole = [(received, sends) for received, sends in told if len(sends) >= tokens]
    first = np.array([sends[0] - received for received, sends in whole]) * 1e3
    gaps = np.concatenate([np.diff(sends) for _, sends in whole]) * 1e3
    start, end = min(r for r, _ in whole), max(sends[-1] for _, sends in whole)
    count = sum(len(sends) for _, sends in whole)
    p50, p99 = np.percentile(first, [50, 99])
    true = Seen(float(p50), float(p99), float(np.percentile(gaps, 99)), count / (end - start))
    return true, count


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
