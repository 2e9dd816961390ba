"""Options of traffic and of the service level, for the commands that simulate."""

import argparse
import math
from pathlib import Path

from capacity.serving.lengths import SAMPLE, parse_lengths
from capacity.simulation.target import Target, parse_target
from capacity.simulation.traffic import Traffic, at_rate, read_traffic
from client.errors import UsageError
from client.load.arrivals import PROCESSES, Arrivals

GOOD_SHARE = 0.99


def add_lengths(parser: argparse._ActionsContainer) -> None:
    """How long prompts and answers are."""
    parser.add_argument(
        "--lengths", default=SAMPLE,
        help="PROMPT:ANSWER tokens, PROMPT:ANSWER~SIGMA (lognormal), sample (ShareGPT-like), or a "
        "file: ShareGPT JSON, a trace, rows of client.benchmark (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--tokenizer", type=Path, help="counts the tokens of a ShareGPT file")


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """When requests come."""
    group = parser.add_argument_group("traffic")
    group.add_argument(
        "--trace", type=Path, metavar="FILE",
        help="times and lengths: an Azure or Mooncake trace, or a record of client.benchmark",
    )  # fmt: skip
    group.add_argument(
        "--trace-speed", type=float, default=1.0, metavar="X", help="X times as fast (default: 1)"
    )
    group.add_argument("--rate", type=float, help="instead of a trace: requests a second, or inf")
    group.add_argument(
        "--arrivals", default="poisson", help=f"{', '.join(PROCESSES)} (default: %(default)s)"
    )
    group.add_argument(
        "--burstiness", type=float, default=1.0, help="of gamma arrivals; 1 is Poisson"
    )
    group.add_argument("--requests", type=int, help="how many; of a trace, the first so many")
    group.add_argument("--seed", type=int, default=0)
    add_lengths(group)


def traffic_of(given: argparse.Namespace, requests: int) -> Traffic:
    """What the options ask for; `requests`: of a rate, where they do not say.

    UsageError for options that contradict each other or say nothing.
    """
    if given.requests is not None and given.requests < 1:
        raise UsageError(f"--requests: 1 or more; got {given.requests}")
    if (given.trace is None) == (given.rate is None):
        raise UsageError("give --trace FILE or --rate R (requests a second), one of them")
    if given.trace is not None:
        if given.lengths != SAMPLE:
            raise UsageError("--trace brings its own lengths; leave out --lengths")
        found = read_traffic(given.trace).faster(given.trace_speed)
        return found if given.requests is None else found.first(given.requests)
    check_rate(given.rate)
    arrivals = Arrivals(given.arrivals, given.rate, given.burstiness)
    lengths = parse_lengths(given.lengths, given.tokenizer)
    return at_rate(lengths, arrivals, given.requests or requests, given.seed)


def check_rate(rate: float) -> None:
    """UsageError unless it is above 0."""
    if not rate > 0 or math.isnan(rate):
        raise UsageError(f"--rate: requests a second, above 0; got {rate:g}")


def add_target(parser: argparse.ArgumentParser) -> None:
    """The service level."""
    group = parser.add_argument_group("service level")
    group.add_argument(
        "--goodput", nargs="+", metavar="NAME:MS",
        help="limits of each request, such as ttft:500 tpot:50",
    )  # fmt: skip
    group.add_argument(
        "--good-share", type=float, default=GOOD_SHARE, metavar="S",
        help="of the requests are to keep them (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latency", nargs="+", metavar="PNN_NAME:MS",
        help="limits of percentiles, such as p99_ttft:800 p50_tpot:40",
    )  # fmt: skip


def target_of(given: argparse.Namespace) -> Target:
    """The service level of the options."""
    return parse_target(given.goodput, given.good_share, given.latency)


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """What every replica of our server is told."""
    group = parser.add_argument_group("fleet")
    group.add_argument(
        "--router", default="round-robin", help="round-robin or least-loaded (default: %(default)s)"
    )
    group.add_argument(
        "--prefills-per-decode", type=int, default=1, help="as `python -m server` (default: 1)"
    )
    group.add_argument(
        "--queue-limit", type=int, default=16_384,
        help="requests that wait at a replica; more are refused (default: %(default)s)",
    )  # fmt: skip
