"""`python -m client.calibrate`: how far off this client is on this host, at several loads.

Runs against a server that logs when each token really left, prints the error floor, and keeps it:
every later record of this host carries it.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from client.calibration.floor import Floor, Trial, measure
from client.calibration.kept import DEFAULT_PATH
from client.errors import NotReadyError
from client.results.files import write_whole
from client.results.host import describe_host

_KINDS = ("openai", "openai-chat", "jetstream")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(argv)
    cores = _cores()
    core = None
    if len(cores) > 1:
        # As a client and a server on two machines: neither takes the other's time.
        os.sched_setaffinity(0, {cores[0]} if given.workers == 1 else set(cores[:-1]))
        core = cores[-1]
    try:
        floors = [
            _median([measure(trial, core) for _ in range(given.rounds)]) for trial in _trials(given)
        ]
    except NotReadyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the last calibration stands", file=sys.stderr)
        return 130
    found = {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "host": describe_host(),
        "rounds": given.rounds,
        "floors": [asdict(floor) for floor in floors],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(given.out, json.dumps(found, indent=2) + "\n")
    print(render(floors, given.rounds))
    print(f"kept in {given.out}", file=sys.stderr)
    return 0 if all(floor.counts_agree for floor in floors) else 1


def render(floors: Sequence[Floor], rounds: int) -> str:
    """The floors as a Markdown table."""
    lines = [
        f"Error of this client on this host, measured less true, median of {rounds} rounds.",
        "",
        "| target | workers | streams | offered tok/s | reached | TTFT p50 / p99, ms "
        "| ITL p50 / p99, ms | read lag p50 / p99, ms | CPU ms / 1,000 tokens | CPU share "
        "| counts |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for floor in floors:
        name = floor.kind if floor.transport == "fast" else f"{floor.kind}, {floor.transport}"
        lines.append(
            f"| {name} | {floor.workers} | {floor.streams} | {floor.offered_tokens_per_s:,.0f} "
            f"| {floor.reached_tokens_per_s:,.0f} "
            f"| {floor.ttft_error_p50_ms:+.2f} / {floor.ttft_error_p99_ms:+.2f} "
            f"| {floor.itl_error_p50_ms:+.2f} / {floor.itl_error_p99_ms:+.2f} "
            f"| {floor.read_lag_p50_ms:.2f} / {floor.read_lag_p99_ms:.2f} "
            f"| {floor.cpu_ms_per_1000_tokens:.1f} | {floor.cpu_share:.2f} "
            f"| {'agree' if floor.counts_agree else 'DIFFER'} |"
        )
    return "\n".join(lines)


def _median(floors: Sequence[Floor]) -> Floor:
    """Each figure's median over rounds of one trial."""
    values: dict[str, Any] = {}
    for field in fields(Floor):
        found = [getattr(floor, field.name) for floor in floors]
        if field.name == "counts_agree":
            values[field.name] = all(found)
        elif isinstance(found[0], float):
            values[field.name] = statistics.median(found)
        else:
            values[field.name] = found[0]
    return Floor(**values)


def _trials(given: argparse.Namespace) -> list[Trial]:
    return [
        Trial(
            kind=kind,
            streams=streams,
            tokens=given.tokens,
            generations=given.generations,
            ttft=given.ttft_ms / 1e3,
            itl=given.itl_ms / 1e3,
            transport=given.transport,
            workers=given.workers,
        )
        for kind in given.targets
        for streams in given.streams
        if given.transport == "fast" or kind == "jetstream"
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client.calibrate", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument("--targets", nargs="+", choices=_KINDS, default=["openai", "jetstream"])
    parser.add_argument("--transport", choices=("fast", "grpcio"), default="fast")
    parser.add_argument("--streams", nargs="+", type=_count, default=[64, 512])
    parser.add_argument("--tokens", type=_count, default=64, help="of each request")
    parser.add_argument("--generations", type=_count, default=4, help="requests of each stream")
    parser.add_argument("--ttft-ms", type=float, default=100.0)
    parser.add_argument("--itl-ms", type=float, default=25.0)
    parser.add_argument("--workers", type=_count, default=1)
    parser.add_argument("--rounds", type=_count, default=3)
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on; got {text!r}")
    return int(text)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


if __name__ == "__main__":
    sys.exit(main())
