"""What the hardware cost for what came out of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.errors import UsageError


@dataclass(frozen=True)
class ChipPrice:
    """`chip_hour` is the price of one chip for an hour, in any currency; `chips` serve together."""

    chip_hour: float
    chips: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.chip_hour) and self.chip_hour > 0):
            raise UsageError(
                f"--chip-hour-price: the price of a chip for an hour, above 0; got {self.chip_hour}"
            )
        if self.chips < 1:
            raise UsageError(f"--chips: how many serve, 1 or more; got {self.chips}")


def chip_price(chip_hour: float | None, chips: int | None) -> ChipPrice | None:
    """The price of a run from its two options, or None where there is none.

    Raises `UsageError` for chips without a price.
    """
    if chip_hour is None:
        if chips is not None:
            raise UsageError("--chips: give --chip-hour-price too, or leave out --chips")
        return None
    return ChipPrice(chip_hour, 1 if chips is None else chips)


def cost_figures(figures: Mapping[str, Any], price: ChipPrice) -> dict[str, Any]:
    """Costs in the currency of the price, for all chips over the whole duration of the run.

    `figures` are those of `metrics.figures`, or a record that holds them. Tokens and requests are
    those of completed requests; what failed is paid for all the same. Idle time is paid for too, so
    at a low request rate this is the cost at that rate, not the least cost. A figure is None where
    nothing came out; the one of good tokens is there only where goodput is.
    """
    cost = price.chip_hour * price.chips * figures["duration"] / 3600
    tokens_out = figures["total_output_tokens"]
    found = {
        "chip_hour_price": price.chip_hour,
        "chips": price.chips,
        "cost": cost,
        "cost_per_million_output_tokens": _per(cost, tokens_out, 1e6),
        "cost_per_million_total_tokens": _per(
            cost, figures["total_input_tokens"] + tokens_out, 1e6
        ),
        "cost_per_1000_requests": _per(cost, figures["completed"], 1e3),
    }
    if figures.get("good_output_tokens") is not None:
        good = figures["good_output_tokens"]
        found["cost_per_million_good_output_tokens"] = _per(cost, good, 1e6)
    return found


def _per(cost: float, count: int, unit: float) -> float | None:
    return cost / count * unit if count else None
