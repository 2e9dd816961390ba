"""`python -m client.calibrate`: how far off this client is on this host, at several loads.

Runs against a server that logs when each token really left, prints the error floor, and keeps it:
every later record of this host carries it.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from client.calibration.floor import KINDS, Floor, Trial, measure
from client.calibration.kept import DEFAULT_PATH
from client.errors import NotReadyError, UsageError
from client.load.files import allow_many_files
from client.measure import say
from client.results.files import write_whole
from client.results.host import describe_host
from client.results.store import prepare
from client.targets.reading import possible_transport
from client.targets.settings import TRANSPORTS

DONE, COUNTS_DIFFER, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = _parser().parse_args(argv)
    try:
        trials = _trials(given)
        prepare(given.out.parent)
        allow_many_files()
        with _apart(given.workers) as core:
            floors = [_floor(trial, given.rounds, core) for trial in trials]
    except (UsageError, NotReadyError) as error:
        say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted; the last calibration stands")
        return INTERRUPTED
    print(render(floors, given.rounds))
    if not all(floor.counts_agree for floor in floors):
        say("tokens were lost, which must not be: not kept; the last calibration stands")
        return COUNTS_DIFFER
    try:
        _keep(given.out, floors, given.rounds)
    except OSError as error:
        say(f"error: cannot write {given.out}: {error.strerror}")
        return BAD_INPUT
    say(f"kept in {given.out}")
    return DONE


@contextmanager
def _apart(workers: int) -> Iterator[int | None]:
    """Gives the core for the server and leaves the others to this process, where there are some.

    As a client and a server on two machines: neither takes the other's time.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield None
        return
    os.sched_setaffinity(0, {cores[0]} if workers == 1 else set(cores[:-1]))
    try:
        yield cores[-1]
    finally:
        os.sched_setaffinity(0, cores)


def _floor(trial: Trial, rounds: int, core: int | None) -> Floor:
    say(f"{trial.kind}, {trial.streams} streams: {rounds} rounds of {trial.seconds:.0f} s")
    return _median([measure(trial, core) for _ in range(rounds)])


def _keep(path: Path, floors: Sequence[Floor], rounds: int) -> None:
    found = {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "host": describe_host(),
        "rounds": rounds,
        "floors": [asdict(floor) for floor in floors],
    }
    write_whole(path, json.dumps(found, indent=2) + "\n")


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
    """Raises `UsageError` for bad numbers."""
    usual = ["jetstream"] if given.transport == "grpcio" else ["openai", "jetstream"]
    return [
        Trial(
            kind=kind,
            streams=streams,
            tokens=given.tokens,
            generations=given.generations,
            ttft=given.ttft_ms / 1e3,
            itl=given.itl_ms / 1e3,
            transport=possible_transport(kind, given.transport, tls=False),
            workers=given.workers,
            at_once=given.at_once,
        )
        for kind in given.targets or usual
        for streams in given.streams
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client.calibrate", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument(
        "--targets", nargs="+", choices=KINDS, metavar="KIND",
        help=f"of {', '.join(KINDS)} (default: openai and jetstream)",
    )  # fmt: skip
    parser.add_argument(
        "--transport", choices=TRANSPORTS, default="fast",
        help="loop: Python's event loop reads, not a thread in C; grpcio, for jetstream: grpc.aio, "
        "not our lean gRPC (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", nargs="+", type=int, default=[64, 512], metavar="N",
        help="in flight, one load after another (default: 64 512)",
    )  # fmt: skip
    parser.add_argument("--tokens", type=int, default=64, help="of each request")
    parser.add_argument("--generations", type=int, default=4, help="requests of each stream")
    parser.add_argument("--ttft-ms", type=float, default=100.0, help="of the server")
    parser.add_argument("--itl-ms", type=float, default=25.0, help="of the server")
    parser.add_argument("--workers", type=int, default=1, help="client processes")
    parser.add_argument(
        "--at-once", action="store_true", help="start all streams at once, not one after another"
    )
    parser.add_argument("--rounds", type=_rounds, default=3, help="of which the median is kept")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_PATH, help="where it is kept (default: %(default)s)"
    )
    return parser


def _rounds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
