"""What the published pages print, from what is predicted of them."""

from collections.abc import Callable, Mapping

from capacity.published.rows import PublishedRow

Convert = Callable[[PublishedRow, float], float]

PAGE_UNITS: Mapping[str, Mapping[str, Convert]] = {
    "000": {
        "tokens/sec": lambda row, value: value,
        # Over the whole batch, as the page has it.
        "msec/token": lambda row, value: 1e3 / value,
        "Latency, sec": lambda row, value: 100 * row.batch / value,
    },
    "001": {
        "Mean Latency, s": lambda row, value: value / 1e3,
        "Throughput": lambda row, value: row.batch / (value / 1e3),
    },
    "002": {"throughput, token/s": lambda row, value: value},
    "003": {"Time Taken, seconds": lambda row, value: value},
}
