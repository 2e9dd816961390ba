"""What makes one fleet better than another."""

from collections.abc import Iterable, Sequence

from capacity.planning.candidate import Candidate
from capacity.planning.reason import Reason, describe
from capacity.work.setting import Setting

PRICE, ENERGY, CHIPS = "price", "energy", "chips"
ORDERS = (PRICE, ENERGY, CHIPS)
DOMINATED = "dominated"
# Above this share of its slots in use on average, a replica has requests wait for one.
_FULL = 0.6
_UNKNOWN = {PRICE: "no list price", ENERGY: "no datasheet power"}
_UNITS = {PRICE: "$/h", ENERGY: "W", CHIPS: "chips"}


def cost(order: str, setting: Setting, replicas: int) -> float | None:
    """Of a fleet: dollars an hour, watts, or chips; None where the figure is not known."""
    where = setting.slice
    each = {PRICE: where.price_per_hour, ENERGY: where.watts, CHIPS: where.count}[order]
    return None if each is None else replicas * each


def say(order: str, amount: float) -> str:
    """A cost with its unit."""
    return f"{amount:,.4g} {_UNITS[order]}"


def unknown_cost(order: str, candidate: Candidate) -> Reason:
    """Of a candidate whose cost is not known."""
    return Reason(
        _UNKNOWN[order],
        candidate.setting,
        candidate.chips,
        f"{candidate.replicas:,} replicas would do; give it with --chips FILE",
    )


def rank(
    order: str, candidates: Iterable[Candidate]
) -> tuple[list[tuple[float, Candidate]], list[Reason]]:
    """The best of each slice, scheme and sharding by cost, and why the others are left out."""
    best: dict[tuple[str, str, str], tuple[float, Candidate]] = {}
    reasons, beaten = [], []
    for each in candidates:
        amount = cost(order, each.setting, each.replicas)
        if amount is None:
            reasons.append(unknown_cost(order, each))
            continue
        kept = best.get(each.key)
        if kept is None or _better((amount, each), kept):
            best[each.key] = amount, each
        beaten.append((amount, each))
    ranked = sorted(best.values(), key=lambda entry: (entry[0], entry[1].chips, entry[1].tpot))
    # One remark a slice and scheme whose figure is not known, not one a batch.
    seen: dict[str, Reason] = {}
    for reason in sorted(reasons, key=lambda reason: reason.distance):
        seen.setdefault(describe(reason.setting), reason)
    chosen = {id(each) for _, each in ranked}
    others = [entry for entry in beaten if id(entry[1]) not in chosen]
    return ranked, [*seen.values(), *_dominated(order, others, best)]


def _better(one: tuple[float, Candidate], other: tuple[float, Candidate]) -> bool:
    """Cheaper; at one cost with slots to spare for bursts, then the faster."""

    def key(entry: tuple[float, Candidate]) -> tuple[float, bool, float]:
        amount, each = entry
        return amount, each.active > _FULL * each.setting.slots, each.tpot

    return key(one) < key(other)


def _dominated(
    order: str,
    others: Sequence[tuple[float, Candidate]],
    best: dict[tuple[str, str, str], tuple[float, Candidate]],
) -> list[Reason]:
    found = []
    for amount, each in others:
        top, winner = best[each.key]
        setting, wins = each.setting, winner.setting
        found.append(
            Reason(
                f"{DOMINATED} by another batch or cache length",
                setting,
                amount / top,
                f"batch {setting.slots} of {setting.kept_positions:,} takes {say(order, amount)}, "
                f"batch {wins.slots} of {wins.kept_positions:,} {say(order, top)}",
            )
        )
    return found


def outranked(
    order: str, entries: Sequence[tuple[float, Candidate]], winner: Setting, amount: float
) -> list[Reason]:
    """Those that were not simulated since even on average they cost more."""
    return [
        Reason(
            DOMINATED,
            each.setting,
            their / amount,
            f"{say(order, their)} at least, {describe(winner)} {say(order, amount)}",
        )
        for their, each in entries
    ]
