"""The command line of the search for the highest rate."""

import argparse

from client.errors import UsageError
from client.load.arrivals import check_rate
from client.load.saturation import SearchSettings

_OPTIONS = {
    "max_rate": "--max-rate",
    "good_share": "--good-share",
    "probe_seconds": "--probe-seconds",
    "search_precision": "--search-precision",
    "most_probes": "--most-probes",
}
_CHOSEN = {
    "duration": "--duration",
    "stages": "--stages",
    "ramp_up_strategy": "--ramp-up-strategy",
    "num_prompts": "--num-prompts",
}


def add_search_options(group: argparse._ArgumentGroup) -> None:
    """Adds the search; `search_settings` reads it."""
    group.add_argument(
        "--saturation", action="store_true",
        help="find the highest rate that keeps --goodput, from --request-rate (default 1) on",
    )  # fmt: skip
    group.add_argument("--max-rate", type=float, metavar="R", help="of the search")
    group.add_argument(
        "--good-share", type=float, metavar="S", help="of the requests must be good (default: 0.99)"
    )
    group.add_argument(
        "--probe-seconds", type=float, metavar="S", help="of each run of the search (default: 30)"
    )
    group.add_argument(
        "--search-precision", type=float, metavar="P", help="of the rate found (default: 0.05)"
    )
    group.add_argument(
        "--most-probes", type=int, metavar="N", help="runs of the search (default: 12)"
    )


def search_settings(given: argparse.Namespace) -> SearchSettings | None:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    kept = {name: getattr(given, name) for name in _OPTIONS if getattr(given, name) is not None}
    if not given.saturation:
        if kept:
            names = ", ".join(_OPTIONS[name] for name in kept)
            raise UsageError(f"{names}: only with --saturation; give it too")
        return None
    if not given.goodput:
        raise UsageError("--saturation needs a service level: --goodput ttft:500 tpot:50")
    for name, option in _CHOSEN.items():
        if getattr(given, name) is not None:
            raise UsageError(f"{option}: --saturation chooses rate and length itself; leave it out")
    if "search_precision" in kept:
        kept["precision"] = kept.pop("search_precision")
    rate = check_rate(given.request_rate)
    return SearchSettings(start_rate=1.0 if rate == float("inf") else rate, **kept)
