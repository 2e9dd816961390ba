"""Which percentiles and which latencies a run is asked to report."""

from client.errors import UsageError

LATENCIES = ("ttft", "tpot", "itl", "e2el")


def parse_percentiles(text: str) -> tuple[float, ...]:
    """`50,90,99.9` as numbers, sorted, each once.

    Raises `UsageError` for what is not a number from 0 to 100.
    """
    found = set()
    for word in _words(text, "--metric-percentiles", "50,90,99"):
        try:
            percent = float(word)
        except ValueError:
            percent = -1.0
        if not 0 <= percent <= 100:
            raise UsageError(f"--metric-percentiles: numbers from 0 to 100; got {word!r}")
        found.add(percent)
    return tuple(sorted(found))


def parse_latencies(text: str) -> tuple[str, ...]:
    """`ttft,e2el` as names, in the order of `LATENCIES`.

    Raises `UsageError` for a name that is not one of them.
    """
    words = _words(text, "--percentile-metrics", ",".join(LATENCIES))
    for word in words:
        if word not in LATENCIES:
            raise UsageError(f"--percentile-metrics: any of {', '.join(LATENCIES)}; got {word!r}")
    return tuple(name for name in LATENCIES if name in words)


def _words(text: str, option: str, example: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"{option}: one or more, such as {example}; got {text!r}")
    return words
