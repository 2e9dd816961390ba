"""The command line of arrivals."""

import argparse
import math

from client.errors import UsageError
from client.load.arrivals import PROCESSES, Arrivals, check_rate
from client.load.rates import RAMPS, Ramp, Stage


def add_arrival_options(group: argparse._ArgumentGroup) -> None:
    """Adds what says when requests are sent; `arrivals_from` reads it."""
    group.add_argument(
        "--request-rate", type=float, default=0.0, metavar="R",
        help="requests per second; 0 or inf: all at once (default)",
    )  # fmt: skip
    group.add_argument(
        "--arrivals", choices=PROCESSES,
        help="gaps between requests (default: poisson, or gamma with --burstiness)",
    )  # fmt: skip
    group.add_argument(
        "--burstiness", type=float, metavar="B",
        help="shape of gamma gaps: 1 is Poisson, less comes in bursts, more is evener",
    )  # fmt: skip
    group.add_argument(
        "--ramp-up-strategy", choices=RAMPS, help="let the rate grow over the whole run"
    )
    group.add_argument("--ramp-up-start-rps", type=float, metavar="R", help="rate at its start")
    group.add_argument("--ramp-up-end-rps", type=float, metavar="R", help="rate at its end")
    group.add_argument(
        "--stages", metavar="RATE:SECONDS,..", help="rates one after another: 2:30,8:30"
    )
    group.add_argument(
        "--duration", type=float, metavar="SECONDS",
        help="as many requests as the rate gives in this time, instead of a number",
    )  # fmt: skip


def arrivals_from(given: argparse.Namespace) -> Arrivals:
    """The arrivals the options ask for. Raises `UsageError` for those that contradict."""
    stages = _stages(given.stages) if given.stages is not None else ()
    arrivals = Arrivals(
        process=_process(given),
        rate=check_rate(given.request_rate),
        burstiness=1.0 if given.burstiness is None else given.burstiness,
        ramp=_ramp(given),
        stages=stages,
    )
    if arrivals.at_once and arrivals.burstiness != 1:
        raise UsageError("--burstiness is of requests over time; give --request-rate too")
    if given.duration is not None:
        if not 0 < given.duration < math.inf:
            raise UsageError(f"--duration: seconds above 0; got {given.duration}")
        if stages:
            raise UsageError("--stages bring their own duration; leave out --duration")
    return arrivals


def _process(given: argparse.Namespace) -> str:
    if given.arrivals is not None:
        return str(given.arrivals)
    # vLLM always gives a burstiness; at 1 a gamma process is the Poisson process.
    return "poisson" if given.burstiness in (None, 1.0) else "gamma"


def _ramp(given: argparse.Namespace) -> Ramp | None:
    strategy, start = given.ramp_up_strategy, given.ramp_up_start_rps
    end = given.ramp_up_end_rps
    if (strategy, start, end) == (None, None, None):
        return None
    if None in (strategy, start, end):
        raise UsageError(
            "--ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps go together; give all "
            "three"
        )
    return Ramp(strategy, start, end)


def _stages(text: str) -> tuple[Stage, ...]:
    stages = []
    for part in text.split(","):
        rate, colon, seconds = part.partition(":")
        try:
            if not colon:
                raise ValueError
            numbers = float(rate), float(seconds)
        except ValueError:
            raise UsageError(
                f"--stages: RATE:SECONDS with commas between, such as 2:30,8:30; got {part!r}"
            ) from None
        stages.append(Stage(*numbers))
    return tuple(stages)
