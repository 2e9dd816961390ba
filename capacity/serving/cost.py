"""Energy and money for a token."""

from dataclasses import dataclass

from capacity.hardware.slice import Slice

DATASHEET, MEASURED = "from datasheet power", "measured"
MILLION = 1e6


@dataclass(frozen=True)
class Power:
    """Watts of all chips together. `source`: DATASHEET or MEASURED, and by whom."""

    watts: float
    source: str

    def joules_per_token(self, tokens_per_s: float) -> float:
        """Of the chips alone."""
        return self.watts / tokens_per_s


def datasheet_power(slice_: Slice) -> Power | None:
    """An upper estimate: chips that wait for memory draw less. None without a figure."""
    watts = slice_.watts
    return None if watts is None else Power(watts, DATASHEET)


def price_per_million(slice_: Slice, tokens_per_s: float) -> float | None:
    """Dollars for a million tokens at this rate around the clock; None without a price."""
    price = slice_.price_per_hour
    return None if price is None else price / 3600 / tokens_per_s * MILLION
