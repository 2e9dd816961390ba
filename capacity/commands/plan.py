"""`python -m capacity plan`: from traffic and a service level to a ranked list of fleets."""

import argparse
import json
import math
from collections.abc import Mapping

import numpy as np

from capacity.commands.options import (
    add_calibration,
    add_chips,
    add_page,
    posterior_of,
    read_chips,
    read_slice,
    whole_numbers,
    words,
)
from capacity.commands.progress import Progress
from capacity.commands.simulate import require_ours
from capacity.commands.traffic_options import (
    add_fleet,
    add_target,
    add_traffic,
    check_rate,
    target_of,
    traffic_of,
)
from capacity.hardware.chip import Chip
from capacity.hardware.chips import find_chip
from capacity.hardware.slice import Slice, slices_of
from capacity.models import find_model
from capacity.pages.document import assumptions
from capacity.pages.planned import write_planned
from capacity.planning.candidate import Choices
from capacity.planning.confirm import Demand
from capacity.planning.order import ORDERS, PRICE
from capacity.planning.plan import Plan, Wish, make_plan
from capacity.serving.lengths import Lengths
from capacity.simulation.fleet import Fleet
from capacity.simulation.router import ROUTERS
from capacity.tables.parameters import render_parameters
from capacity.tables.planned import as_json, render
from capacity.work.setting import CACHES, SHARDINGS, Setting
from capacity.work.software import find_software
from client.errors import UsageError
from client.load.arrivals import Arrivals
from server.models.spec import ModelSpec

FOUND, NOTHING, INTERRUPTED = 0, 1, 130
_LOAD, _MOST_REPLICAS = 0.95, 100_000
# Of the requests, so many must find their prompt and answer in the cache whole.
_WHOLE = 0.999
_SMALLEST_CACHE = 256
_SAMPLE = 2000


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "--model", required=True, help="a known name, or a directory with a config.json"
    )
    where = parser.add_argument_group("what to choose from (lists with commas)")
    where.add_argument("--slice", help="such as v5e-8,h100x8; default: all slices of --chip")
    where.add_argument("--chip", help="such as v5e,h100; default: all known")
    where.add_argument("--quantize", default="none,int8", help="default: %(default)s")
    where.add_argument("--quantize-cache", choices=CACHES, help="default: int8 with int8 weights")
    where.add_argument("--sharding", default=",".join(SHARDINGS), help="default: %(default)s")
    where.add_argument("--batch-size", help="default: powers of two, and the largest that fits")
    where.add_argument("--cache-length", help="default: what all but 0.1%% of the requests need")
    where.add_argument("--prefill-chunk", type=int, default=512)
    wish = parser.add_argument_group("what to have least of")
    wish.add_argument("--order", default=PRICE, help=f"{', '.join(ORDERS)} (default: {PRICE})")
    wish.add_argument("--top", type=int, default=5, help="fleets to simulate (default: 5)")
    wish.add_argument(
        "--load", type=float, default=_LOAD, metavar="S",
        help="the most a replica is given, of what it can take on average (default: %(default)s)",
    )  # fmt: skip
    add_traffic(parser)
    add_fleet(parser)
    add_target(parser)
    add_calibration(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_page(parser)
    add_chips(parser)
    parser.set_defaults(software="loadstone")


def run(given: argparse.Namespace) -> int:
    """Prints the list; status 1 when it is empty."""
    _check(given)
    target, chips = target_of(given), read_chips(given)
    model = find_model(given.model)
    demand, source = _demand(given, model)
    choices = _choices(given, model, chips, demand.lengths)
    posterior, calibrated = posterior_of(given)
    wish = Wish(given.order, given.top, _MOST_REPLICAS, given.load)

    def fleet(replicas: int) -> Fleet:
        return Fleet(replicas, given.router, 1, given.prefills_per_decode, given.queue_limit)

    with Progress("screened", 1, "setting") as progress:
        plan = make_plan(
            choices, demand, target, dict(posterior.values), wish, fleet, progress.stage
        )
    tokens_per_s = demand.rate * float(demand.lengths.outputs.mean())
    lines = [
        f"{model.name}, {source}, {tokens_per_s:,.0f} output tokens/s",
        f"Service level: {target}",
        f"Efficiencies: {calibrated}",
        f"{len(plan.all):,} settings keep it on average; by {given.order}, latencies in ms of "
        "the simulation:",
        "",
        *render(plan, given.order, tokens_per_s),
    ]
    if given.json:
        print(json.dumps(as_json(plan, given.order, tokens_per_s), indent=1))
    else:
        print("\n".join(lines))
    if given.html is not None:
        used = dict.fromkeys(found.candidate.setting.slice.chip.name for _, found in plan.ranked)
        rest = assumptions(
            [chips[name] for name in used if name in chips],
            render_parameters(posterior),
            calibrated,
        )
        write_planned(given.html, plan, given.order, target, lines, rest)
    return _status(plan)


def _status(plan: Plan) -> int:
    if plan.interrupted:
        return INTERRUPTED
    return FOUND if plan.ranked else NOTHING


def _check(given: argparse.Namespace) -> None:
    require_ours(given.software)
    if given.order not in ORDERS:
        raise UsageError(f"--order: {', '.join(ORDERS)}; got {given.order!r}")
    if given.router not in ROUTERS:
        raise UsageError(f"--router: {', '.join(ROUTERS)}; got {given.router!r}")
    if given.top < 1:
        raise UsageError(f"--top: 1 or more; got {given.top}")
    if not 0 < given.load < 1:
        raise UsageError(f"--load: a share above 0 and below 1; got {given.load:g}")
    Fleet(1, given.router, 1, given.prefills_per_decode, given.queue_limit)


def _demand(given: argparse.Namespace, model: ModelSpec) -> tuple[Demand, str]:
    """The traffic, and in words."""
    if given.rate is not None:
        check_rate(given.rate)
        if math.isinf(given.rate):
            raise UsageError("--rate inf: a plan is for traffic that goes on; give requests/s")
    traffic, too_long = traffic_of(given, _SAMPLE).within(model.position_limit)
    if not math.isfinite(traffic.rate):
        raise UsageError("--trace: all of its requests come at once; a plan takes a rate")
    trace = traffic if given.trace is not None else None
    rate = given.rate or traffic.rate
    arrivals = Arrivals(given.arrivals, rate, given.burstiness)
    more = f" ({too_long:,} longer than the model's positions left out)" if too_long else ""
    lengths = Lengths(traffic.inputs, traffic.outputs, traffic.source)
    said = f"{rate:,.4g} requests/s, {given.arrivals}; {given.lengths}" if trace is None else ""
    return Demand(rate, lengths, arrivals, trace, given.seed), (said or traffic.source) + more


def _choices(
    given: argparse.Namespace, model: ModelSpec, chips: Mapping[str, Chip], lengths: Lengths
) -> Choices:
    slices = _slices(given, chips)
    base = Setting(
        model,
        slices[0],
        chunk=given.prefill_chunk,
        compute="fp32" if slices[0].chip.kind == "cpu" else "bf16",
        software=find_software(given.software),
    )
    return Choices(
        base,
        slices,
        words(given.quantize),
        words(given.sharding),
        given.quantize_cache,
        _cache_lengths(given, model, lengths),
        None if given.batch_size is None else whole_numbers("--batch-size", given.batch_size),
    )


def _slices(given: argparse.Namespace, chips: Mapping[str, Chip]) -> list[Slice]:
    if given.slice is not None:
        found = [read_slice(name, chips) for name in words(given.slice)]
        if given.chip is not None:
            allowed = {find_chip(name, chips).name for name in words(given.chip)}
            found = [each for each in found if each.chip.name in allowed]
            if not found:
                raise UsageError("--slice and --chip have nothing in common; give one of them")
        return found
    wanted = words(given.chip) if given.chip is not None else [*chips]
    return [each for name in wanted for each in slices_of(find_chip(name, chips))]


def _cache_lengths(given: argparse.Namespace, model: ModelSpec, lengths: Lengths) -> list[int]:
    """Of --cache-length, or the least power of two that holds nearly all prompts with answers."""
    if given.cache_length is not None:
        return whole_numbers("--cache-length", given.cache_length)
    longest = float(np.quantile(lengths.inputs + lengths.outputs, _WHOLE))
    if model.sliding_window is not None:
        longest = min(longest, model.sliding_window)
    return [max(_SMALLEST_CACHE, 2 ** math.ceil(math.log2(longest)))]
