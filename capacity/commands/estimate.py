"""`python -m capacity estimate`: prefill, decode, TTFT, TPOT, throughput, energy and price."""

import argparse
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from capacity.calibration.interval import Interval, interval
from capacity.commands.options import (
    add_calibration,
    add_chips,
    add_model,
    add_page,
    one_setting,
    posterior_of,
)
from capacity.commands.traffic_options import add_lengths
from capacity.memory.need import memory_need, require_fit
from capacity.pages.document import assumptions
from capacity.pages.estimated import write_estimated
from capacity.serving.batch_run import BatchTimes, batch_run, time_batch
from capacity.serving.cost import datasheet_power, price_per_million
from capacity.serving.lengths import Lengths, parse_lengths
from capacity.serving.level import parse_level, require_possible
from capacity.serving.steady import Server, Steady
from capacity.simulation.step_model import step_model
from capacity.tables.markdown import number, table
from capacity.tables.parameters import render_parameters
from capacity.timing.efficiency import IDEAL, Efficiency
from capacity.work.setting import Setting
from client.errors import UsageError

MET, MISSED = 0, 1
_SEED = 0


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    add_model(parser)
    parser.add_argument("--batch-size", help="slots; default: the largest that fits, at most 256")
    add_lengths(parser)
    parser.add_argument("--rate", type=float, help="requests a second; default: all at once")
    parser.add_argument(
        "--requests", type=int, default=1000, help="how many, all at once (default: %(default)s)"
    )
    parser.add_argument(
        "--goodput", nargs="+", metavar="NAME:MS",
        help="a service level for the means, such as ttft:500 tpot:50; status 1 when it is missed",
    )  # fmt: skip
    add_calibration(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_page(parser)
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints the estimate; status 1 when a service level is missed."""
    if given.rate is not None and not given.rate > 0:
        raise UsageError(f"--rate: requests a second, above 0; got {given.rate:g}")
    if given.requests < 1:
        raise UsageError(f"--requests: 1 or more; got {given.requests}")
    level = parse_level(given.goodput) if given.goodput else None
    setting = one_setting(given)
    require_fit(setting)
    posterior, source = posterior_of(given)
    lengths = parse_lengths(given.lengths, given.tokenizer)
    if level is not None:
        require_possible(level, setting, lengths)
    quantities = _quantities(setting, lengths, given.rate, given.requests)
    tags = setting.tags
    # A server that keeps up gives out what it is asked for, at any efficiency.
    exact = {"tokens_per_s"} if given.rate is not None else set()
    found = {
        name: interval(predict, posterior, tags, noise=name not in exact)
        for name, predict in quantities.items()
    }
    values = {name: each.value for name, each in found.items()}
    missed = level.missed(values) if level is not None else []
    lines = _report(given, setting, lengths, found, source, missed)
    if given.json:
        print(json.dumps(_as_json(setting, found, missed), indent=1))
    else:
        print("\n".join(lines))
    if given.html is not None:
        rest = assumptions([setting.slice.chip], render_parameters(posterior), source)
        model = step_model(setting, posterior.values)
        write_estimated(given.html, model, lengths, lines, missed, rest)
    return MISSED if missed else MET


Predict = Callable[[Efficiency], float]


def _quantities(
    setting: Setting, lengths: Lengths, rate: float | None, requests: int
) -> dict[str, Predict]:
    """What is estimated, each as a function of the efficiencies. Times in ms."""

    @cache
    def server(efficiency: Efficiency) -> Server:
        return Server(setting, lengths, efficiency)

    found: dict[str, Predict] = {
        "prefill_ms": lambda e: float(server(e).prompts().mean()) * 1e3,
        "step_ms": lambda e: float(server(e).step(setting.slots).total) * 1e3,
        "most_requests_per_s": lambda e: server(e).most_requests,
    }
    if rate is not None:

        @cache
        def steady(efficiency: Efficiency) -> Steady:
            return server(efficiency).at_rate(rate)

        return found | {
            "ttft_ms": lambda e: steady(e).ttft * 1e3,
            "tpot_ms": lambda e: steady(e).tpot * 1e3,
            "tokens_per_s": lambda e: steady(e).tokens_per_s,
            "sequences": lambda e: steady(e).active,
        }
    run = batch_run(setting, lengths.draw(requests, _SEED))

    @cache
    def times(efficiency: Efficiency) -> BatchTimes:
        return time_batch(run, efficiency)

    found["ttft_ms"] = lambda e: float(times(e).ttft.mean()) * 1e3
    if run.lengths.outputs.max() > 1:
        found["tpot_ms"] = lambda e: float(np.nanmean(times(e).tpot)) * 1e3
    found["duration_s"] = lambda e: times(e).duration
    found["tokens_per_s"] = lambda e: times(e).throughput
    return found


_WIDEST = 1e4  # an interval's upper bound over its lower one, above which it says nothing

_LABELS = {
    "prefill_ms": "Prefill of a prompt, mean (ms)",
    "step_ms": "Decode step of all slots (ms)",
    "ttft_ms": "TTFT, mean (ms)",
    "tpot_ms": "TPOT, mean (ms)",
    "duration_s": "Duration (s)",
    "tokens_per_s": "Output tokens/s",
    "sequences": "Sequences at a time",
    "most_requests_per_s": "Most requests/s, steady",
}


def _report(
    given: argparse.Namespace,
    setting: Setting,
    lengths: Lengths,
    found: dict[str, Interval],
    source: str,
    missed: list[str],
) -> list[str]:
    how = f"{given.rate:g} requests/s" if given.rate else f"{given.requests:,} requests at once"
    lines = [
        f"{setting.model.name} on {setting.slice.name} ({setting.slice.chip.title}), weights "
        f"{setting.weights}, cache {setting.cache}, sharding {setting.sharding}, {setting.slots} "
        f"slots of {setting.kept_positions:,} positions, {setting.software.name}",
        f"Memory: {memory_need(setting)}",
        f"Asked: {how}; {lengths}",
        f"Efficiencies: {source}",
        "",
    ]
    rows = [[_LABELS[name], number(each.value), _between(each)] for name, each in found.items()]
    tokens = found["tokens_per_s"]
    power = datasheet_power(setting.slice)
    rows.append(
        _ratio(
            "Energy (J/output token, from datasheet power)",
            None if power is None else power.watts,
            tokens,
        )
    )
    price = price_per_million(setting.slice, 1.0)
    rows.append(_ratio("Price ($ a million output tokens, chips alone)", price, tokens))
    lines += table(["", "Estimated", "95% interval"], rows)
    lines += ["", *_breakdown(setting, lengths)]
    if missed:
        lines += ["", "Service level missed: " + "; ".join(missed)]
    return lines


def _bounds(found: Interval) -> tuple[float, float] | None:
    """None where it says nothing: a wait at a rate inside the interval of the most requests."""
    return None if found.high > _WIDEST * found.low else (found.low, found.high)


def _between(found: Interval) -> str:
    bounds = _bounds(found)
    if bounds is None:
        return "not known: this rate may be more than it can take"
    return " - ".join(map(number, bounds))


def _ratio(label: str, amount: float | None, tokens: Interval) -> list[str]:
    if amount is None:
        return [label, "-", "give it with --chips"]
    low, high = amount / tokens.high, amount / tokens.low
    return [label, number(amount / tokens.value), f"{number(low)} - {number(high)}"]


def _breakdown(setting: Setting, lengths: Lengths) -> list[str]:
    """What a full decode step would take at every peak: where the time has to go."""
    step = Server(setting, lengths, IDEAL).step(setting.slots)
    return [
        f"At every peak a full decode step takes {number(float(step.device) * 1e3)} ms: memory "
        f"{number(float(step.memory) * 1e3)}, arithmetic {number(float(step.compute) * 1e3)}, "
        f"links {number(float(step.links) * 1e3)}."
    ]


def _as_json(setting: Setting, found: dict[str, Interval], missed: list[str]) -> dict[str, Any]:
    power, price = datasheet_power(setting.slice), price_per_million(setting.slice, 1.0)
    tokens = found["tokens_per_s"].value
    return {
        "model": setting.model.name,
        "slice": setting.slice.name,
        "weights": setting.weights,
        "cache": setting.cache,
        "sharding": setting.sharding,
        "batch_size": setting.slots,
        "cache_length": setting.kept_positions,
        **{name: _bounded(each) for name, each in found.items()},
        "joules_per_token_datasheet": None if power is None else power.watts / tokens,
        "dollars_per_million_tokens": None if price is None else price / tokens,
        "missed": missed,
    }


def _bounded(found: Interval) -> dict[str, float | None]:
    low, high = _bounds(found) or (None, None)
    return {"value": found.value, "low": low, "high": high}
