"""Which figures are compared, and which way is better."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from client.errors import UsageError

_HIGHER = (
    "request_throughput", "input_throughput", "output_throughput", "total_token_throughput",
    "max_output_tokens_per_s", "completed", "completed_share", "sent_request_rate", "good",
    "good_output_tokens", "request_goodput", "request_goodput_from_sent",
)  # fmt: skip
_LOWER = (
    "duration", "failed", "stalls", "stall_share", "stall_seconds", "coalesced_share", "cost",
    "client_cpu_seconds", "client_cpu_share",
)  # fmt: skip

# Of those that both sides have. JetStream's TPOT, which is not ours, is asked for by name.
DEFAULT = (
    "output_throughput", "request_throughput", "completed_share", "request_goodput",
    "request_goodput_from_sent", "goodput_share", "median_ttft_ms", "p99_ttft_ms",
    "median_ttft_from_scheduled_ms", "p99_ttft_from_scheduled_ms", "median_tpot_ms", "p99_tpot_ms",
    "median_itl_ms", "p99_itl_ms", "stall_share", "median_e2el_ms", "p99_e2el_ms",
    "cost_per_million_output_tokens",
)  # fmt: skip


def higher_is_better(metric: str) -> bool | None:
    """Whether more of a figure is better, or less; None for a figure that is neither."""
    if metric in _HIGHER or metric.startswith("goodput_share"):
        return True
    if metric in _LOWER or metric.startswith("cost_per_") or metric.endswith("_ms"):
        return False
    return None


def choose(
    patterns: Sequence[str] | None, first: Iterable[str], second: Iterable[str]
) -> list[str]:
    """The figures to compare: those of `DEFAULT` both have, or what the patterns match in either.

    Patterns are names, with * for any letters. Raises `UsageError` for one that matches nothing
    that is better or worse.
    """
    both, either = set(first) & set(second), sorted({*first, *second})
    if patterns is None:
        return [metric for metric in DEFAULT if metric in both]
    known = [metric for metric in either if higher_is_better(metric) is not None]
    chosen: list[str] = []
    for pattern in patterns:
        found = [metric for metric in known if fnmatchcase(metric, pattern)]
        if not found:
            raise UsageError(
                f"--metrics: neither side has a figure {pattern!r} that is better high or low; "
                f"they have {', '.join(known) or 'none'}"
            )
        chosen += [metric for metric in found if metric not in chosen]
    return chosen
