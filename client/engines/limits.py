"""How near a point comes to what its device could do at most.

Generation: a step's limit as `client/sweeping/roofline.py` has it, at the mean number of live
positions. Passes without cache take at least their arithmetic over the peak, and the weights over
the bandwidth. FLOPs of a pass over B rows of T tokens, a multiplication and an addition each one:

    2 * B * T * (parameters of the layers) + 2 * B * heads * H * layers * seen + 2 * rows * V * D

seen: twice (scores and values) the query-key pairs of a row that a causal mask leaves, that is
T (T + 1) for a whole context and 2 T W - W (W - 1) for a window of W < T tokens. rows: those that
go through the head, B for the next token alone and B * T for the loss.
"""

from dataclasses import dataclass

from client.engines.ask import GENERATE, LOSS
from client.engines.entry import Entry
from client.engines.measuring import Measuring
from client.sweeping.peaks import Peaks
from client.sweeping.roofline import Footprint, live_positions, step_seconds

MEMORY, ARITHMETIC = "memory", "arithmetic"


@dataclass(frozen=True)
class Share:
    """Of the roofline, and what bounds it there."""

    fraction: float
    by: str


def share(entry: Entry, what: Measuring, peaks: Peaks, *, decode_alone: bool) -> Share | None:
    """Of an entry with figures; None where the device's peaks or the engine's sizes are not known.

    `decode_alone`: time of decode steps only, else prefill is in the time, and not in the limit.
    """
    if not entry.ok or (peaks.measured and entry.facts["device"].lower() != "cpu"):
        return None
    if what.task == GENERATE:
        return _generation(entry, what, peaks, decode_alone)
    return _passes(entry, what, peaks)


def pass_flops(sizes: dict[str, int], parameters: int, batch: int, tokens: int, scored: int) -> int:
    """FLOPs of one pass over `batch` rows of `tokens`; `scored` rows go through the head."""
    table = sizes["vocab"] * sizes["hidden"]
    tables = 1 if sizes.get("tied", 1) else 2
    window = sizes.get("window")
    reach = tokens if window is None else min(window, tokens)
    seen = 2 * tokens * reach - reach * (reach - 1)
    weights = 2 * batch * tokens * (parameters - tables * table)
    attention = 2 * batch * sizes["heads"] * sizes["head_dim"] * sizes["layers"] * seen
    return weights + attention + 2 * scored * table


def _generation(entry: Entry, what: Measuring, peaks: Peaks, decode_alone: bool) -> Share | None:
    facts, batch = entry.facts, entry.point.batch
    names = ("step_weight_bytes", "cache_bytes_per_position", "parameters")
    if any(not facts.get(name) for name in names):
        return None
    rows = [(what.prompts[row % len(what.prompts)], what.new_tokens) for row in range(batch)]
    positions = live_positions(rows, max(what.prompts) + what.new_tokens)
    assert positions is not None, "two tokens or more are made of each row"
    model = Footprint(*(facts[name] for name in names))
    moving, computing = step_seconds(model, peaks, batch, positions)
    steps = what.new_tokens - 1 if decode_alone else what.new_tokens
    taken = entry.seconds - entry.first if decode_alone else entry.seconds
    return _of(taken, steps * moving, steps * computing)


def _passes(entry: Entry, what: Measuring, peaks: Peaks) -> Share:
    facts, point = entry.facts, entry.point
    scoring = what.task == LOSS
    scored = point.batch * (point.context if scoring else 1)
    flops = pass_flops(facts["sizes"], facts["parameters"], point.batch, point.context, scored)
    passes = 1 if scoring else what.new_tokens
    moved = facts.get("weight_bytes") or 0
    return _of(entry.seconds, passes * moved / peaks.bandwidth, passes * flops / peaks.flops)


def _of(taken: float, moving: float, computing: float) -> Share:
    return Share(max(moving, computing) / taken, MEMORY if moving > computing else ARITHMETIC)
