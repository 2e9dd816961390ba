"""The command line of load."""

import argparse

from client.errors import UsageError
from client.load.arrival_options import add_arrival_options, arrivals_from
from client.load.settings import WARMUP_MODES, LoadSettings


def add_load_options(group: argparse._ArgumentGroup) -> None:
    """Adds when requests are sent and by whom; `load_settings` reads it."""
    group.add_argument(
        "--num-prompts", type=int,
        help="requests, or with --multi-turn conversations (default: 1000, or what --duration or "
        "a trace gives)",
    )  # fmt: skip
    add_arrival_options(group)
    group.add_argument(
        "--max-concurrency", type=int, metavar="N",
        help="requests at one time: a closed loop, or with a rate a limit",
    )  # fmt: skip
    group.add_argument(
        "--ramp-up-seconds", type=float, default=0.0, metavar="S",
        help="of a closed loop: over which its users come (default: all at once)",
    )  # fmt: skip
    group.add_argument("--workers", type=int, default=1, help="client processes (default: 1)")
    group.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS",
        help="workers on the machines of a Ray cluster (needs the ray extra)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=0, help="of the prompts and arrivals (default: %(default)s)"
    )
    group.add_argument(
        "--warmup-mode", default="none", choices=WARMUP_MODES,
        help="before the run: none, one prompt of each size, or all (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--num-warmups", "--warmup-requests", type=int, default=0, metavar="N",
        help="instead: so many times the first prompt, as vLLM and SGLang do",
    )  # fmt: skip
    group.add_argument(
        "--real-history", action="store_true",
        help="of --multi-turn chats: later turns carry what the model said, not what the data say",
    )  # fmt: skip


def load_settings(given: argparse.Namespace) -> LoadSettings:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    arrivals = arrivals_from(given)
    if given.real_history and given.multi_turn is None:
        raise UsageError("--real-history is for --multi-turn; give both")
    may_be_timed = given.dataset in ("trace", "jsonl", "custom")
    timed = may_be_timed or not arrivals.at_once or given.max_concurrency is not None
    if given.duration is not None and not timed:
        raise UsageError("--duration needs --request-rate, --max-concurrency or a trace")
    if given.ray is not None and not given.ray:
        raise UsageError("--ray: an address such as 10.0.0.1:6379, or auto; got nothing")
    return LoadSettings(
        arrivals=arrivals,
        num_prompts=given.num_prompts,
        duration=given.duration,
        max_concurrency=given.max_concurrency,
        ramp_up_seconds=given.ramp_up_seconds,
        workers=given.workers,
        ray=given.ray,
        seed=given.seed,
        warmup_mode=given.warmup_mode,
        num_warmups=given.num_warmups,
        real_history=given.real_history,
    )
