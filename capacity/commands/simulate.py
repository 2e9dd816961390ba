"""`python -m capacity simulate`: latencies of a fleet of our servers, request by request."""

import argparse
import json
from typing import Any

from capacity.commands.options import (
    add_calibration,
    add_chips,
    add_model,
    add_page,
    one_setting,
    posterior_of,
    whole_numbers,
)
from capacity.commands.progress import Progress
from capacity.commands.traffic_options import (
    add_fleet,
    add_target,
    add_traffic,
    target_of,
    traffic_of,
)
from capacity.memory.need import memory_need, require_fit
from capacity.pages.document import assumptions
from capacity.pages.simulated import write_simulated
from capacity.simulation.fleet import Fleet, simulate
from capacity.simulation.outcome import Outcome
from capacity.simulation.step_model import StepModel, step_model
from capacity.simulation.target import Target, require_possible
from capacity.simulation.traffic import Traffic
from capacity.tables.markdown import table
from capacity.tables.parameters import render_parameters
from capacity.tables.simulated import (
    as_lines,
    costs,
    fleet_headers,
    fleet_row,
    remarks,
    render_latencies,
)
from capacity.work.setting import Setting
from client.errors import UsageError

KEPT, MISSED, INTERRUPTED = 0, 1, 130
_REQUESTS = 10_000
_OURS = "loadstone"


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    add_model(parser)
    parser.add_argument("--batch-size", help="slots of a replica; default: as `estimate`")
    parser.add_argument(
        "--replicas", default="1", help="how many slices, or several with commas (default: 1)"
    )
    add_traffic(parser)
    add_fleet(parser)
    add_target(parser)
    add_calibration(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_page(parser)
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints percentiles; status 1 when no fleet keeps the service level."""
    fleets = [
        Fleet(count, given.router, 1, given.prefills_per_decode, given.queue_limit)
        for count in whole_numbers("--replicas", given.replicas)
    ]
    require_ours(given.software)
    target = target_of(given)
    setting = one_setting(given)
    require_fit(setting)
    traffic, too_long = traffic_of(given, _REQUESTS).within(setting.model.position_limit)
    require_possible(target, setting, traffic.lengths)
    posterior, source = posterior_of(given)
    outcomes = _simulate(fleets, step_model(setting, posterior.values), traffic)
    left_out = [f"{too_long:,} prompts are longer than the model's positions: left out"]
    notes = left_out if too_long else []
    lines = _report(setting, traffic, outcomes, target, source, notes)
    if given.json:
        documents = [_as_json(setting, *each, target) for each in outcomes]
        print(json.dumps(documents if len(fleets) > 1 else documents[0], indent=1))
    else:
        print("\n".join(lines))
    if given.html is not None:
        rest = assumptions([setting.slice.chip], render_parameters(posterior), source)
        write_simulated(given.html, setting, outcomes, target, lines, rest)
    if any(outcome.interrupted for _, outcome in outcomes):
        return INTERRUPTED
    return MISSED if all(target.missed(outcome) for _, outcome in outcomes) else KEPT


def require_ours(software: str) -> None:
    """UsageError for another server, whose scheduler is not ours."""
    if software != _OURS:
        raise UsageError(
            f"--software {software}: only {_OURS}'s own scheduler is simulated; `estimate` takes "
            "others"
        )


def _simulate(
    fleets: list[Fleet], model: StepModel, traffic: Traffic
) -> list[tuple[Fleet, Outcome]]:
    found = []
    for fleet in fleets:
        with Progress(f"{fleet.replicas} replicas", len(traffic), "req") as progress:
            found.append((fleet, simulate(fleet, model, traffic, progress.show)))
        if found[-1][1].interrupted:
            break
    return found


def _report(
    setting: Setting,
    traffic: Traffic,
    outcomes: list[tuple[Fleet, Outcome]],
    target: Target,
    source: str,
    notes: list[str],
) -> list[str]:
    fleet, outcome = outcomes[-1]
    lines = [
        f"{setting.model.name} on {setting.slice.name} ({setting.slice.chip.title}), weights "
        f"{setting.weights}, cache {setting.cache}, sharding {setting.sharding}, {setting.slots} "
        f"slots of {setting.kept_positions:,} positions; {fleet.router}",
        f"Memory: {memory_need(setting)}",
        f"Asked: {traffic.source}",
        f"Service level: {target}",
        f"Efficiencies: {source}",
        "",
    ]
    rows = [fleet_row(fleet.replicas, setting.slice, each, target) for fleet, each in outcomes]
    lines += table(fleet_headers(target), rows)
    for fleet, outcome in outcomes:
        plural = "" if fleet.replicas == 1 else "s"
        lines += ["", f"{fleet.replicas} replica{plural}:", "", *render_latencies(outcome)]
        lines += as_lines(remarks(outcome, target))
    return [*lines, *as_lines(notes)]


def _as_json(setting: Setting, fleet: Fleet, outcome: Outcome, target: Target) -> dict[str, Any]:
    dollars, joules = costs(fleet.replicas, setting.slice, outcome.tokens_per_s)
    return {
        "model": setting.model.name,
        "slice": setting.slice.name,
        "weights": setting.weights,
        "cache": setting.cache,
        "sharding": setting.sharding,
        "batch_size": setting.slots,
        "cache_length": setting.kept_positions,
        "replicas": fleet.replicas,
        "chips": fleet.replicas * setting.slice.count,
        "router": fleet.router,
        **outcome.figures(),
        "service_level": str(target),
        "goodput_share": outcome.good(target.level) if target.asks else None,
        "missed": target.missed(outcome),
        "dollars_per_million_tokens": dollars,
        "joules_per_million_tokens_datasheet": joules,
    }
