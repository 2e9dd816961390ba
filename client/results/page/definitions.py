"""The figures a page shows, in order, and what each of them means in one line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from client.results.page.values import finite

STATISTICS = ("mean", "p50", "p90", "p99")


@dataclass(frozen=True)
class Figure:
    """A figure of a record. `better`: +1 where more is better, -1 where less is, 0 for neither."""

    key: str
    label: str
    definition: str
    digits: int = 2
    better: int = 0
    # Says nothing of a run whose requests were all due at once.
    of_rated: bool = False


@dataclass(frozen=True)
class Latency:
    """A latency that a record gives as mean and percentiles, in ms."""

    name: str
    label: str
    definition: str
    of_rated: bool = False

    def figure(self, statistic: str) -> Figure:
        """One statistic of it, such as p99."""
        label = f"{self.label} {statistic}, ms"
        return Figure(f"{statistic}_{self.name}_ms", label, self.definition, 2, -1, self.of_rated)


OUTCOMES = (
    Figure("num_prompts", "Requests", "that the run was to send.", 0),
    Figure("completed", "Completed", "ended well with at least one token.", 0, 1),
    Figure("failed", "Failed", "ended otherwise; they are in no latency and no throughput.", 0, -1),
    Figure("unfinished", "Unfinished", "in flight when the run was interrupted.", 0, -1),
    Figure("not_sent", "Not sent", "not due yet when the run was interrupted.", 0, -1),
)
THROUGHPUT = (
    Figure("output_throughput", "Output tokens/s",
           "output tokens of completed requests over the duration.", 2, 1),
    Figure("input_throughput", "Input tokens/s",
           "prompt tokens of completed requests over the duration.", 2, 1),
    Figure("total_token_throughput", "Total tokens/s", "both of these together.", 2, 1),
    Figure("request_throughput", "Requests/s", "completed requests over the duration.", 3, 1),
    Figure("sent_request_rate", "Requests sent/s",
           "requests sent but one, over the time from the first sent to the last.", 3,
           of_rated=True),
    Figure("max_output_tokens_per_s", "Busiest second",
           "most output tokens in one whole second of the run.", 0, 1),
    Figure("max_concurrent_requests", "Most in flight",
           "most requests sent and not ended at one time.", 0),
    Figure("duration", "Duration, s",
           "from the start to the end of the last stream, or to the interrupt.", 2),
    Figure("total_input_tokens", "Input tokens", "of the prompts of completed requests.", 0),
    Figure("total_output_tokens", "Output tokens", "of completed requests.", 0),
    Figure("incomplete_output_tokens", "Tokens of incomplete requests",
           "came, but their request did not complete; in no throughput.", 0, -1),
    Figure("tokens_per_message", "Tokens per message",
           "of messages that brought tokens; tokens of one message arrive together.", 2),
)  # fmt: skip
GOODPUT = (
    Figure("request_goodput", "Good requests/s",
           "requests that kept every limit of the service level, over the duration.", 3, 1),
    Figure("goodput_share", "Good share",
           "good requests of all that were due; a failed one is a missed one.", 4, 1),
)  # fmt: skip
STALLS = (
    Figure("max_itl_ms", "Largest gap, ms", "the longest wait between two tokens.", 2, -1),
    Figure("stalls", "Stalls", "gaps longer than 3 times the median gap.", 0, -1),
    Figure("stall_share", "Stall share", "stalls of all gaps between tokens.", 4, -1),
    Figure("stall_seconds", "Stall seconds",
           "what stalls took beyond a median gap each, over all requests.", 2, -1),
)  # fmt: skip
COSTS = (
    Figure("cost", "Cost", "of all chips over the duration, in the currency of the price.", 4, -1),
    Figure("cost_per_million_output_tokens", "Cost per million output tokens",
           "the cost over the output tokens of completed requests.", 4, -1),
    Figure("cost_per_1000_requests", "Cost per 1,000 requests",
           "the cost over completed requests.", 4, -1),
)  # fmt: skip
CLIENT = (
    Figure("client_cpu_share", "Processor seconds per second",
           "of the client; near 1 its own limit is in the figures.", 2),
)  # fmt: skip
SCALARS = (*THROUGHPUT, *GOODPUT, *STALLS, *COSTS, *CLIENT)

LATENCIES = (
    Latency("ttft", "TTFT", "time to first token: from sent to the message with the first token."),
    Latency("ttst", "Second token", "from sent to the message with the second token."),
    Latency("tpot", "TPOT", "time per output token: (last token - first token) / (tokens - 1)."),
    Latency("itl", "ITL", "inter-token latency: between a token and the one before it."),
    Latency("e2el", "End to end", "from sent to the message with the last token."),
    Latency("ttft_from_scheduled", "TTFT from scheduled", "as TTFT, from when it was due.", True),
    Latency("e2el_from_scheduled", "End to end from scheduled",
            "as end to end, from when it was due.", True),
    Latency("largest_itl", "Largest gap of a request",
            "the longest wait between two tokens of one request."),
    Latency("server_queue", "Queue, by the server", "what the server says of its own queue."),
    Latency("server_prefill", "Prefill, by the server", "what the server says of its prefill."),
    Latency("send_lag", "Send lag", "time sent - time due: how late the client was."),
)  # fmt: skip


def present(figures: Iterable[Figure], records: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The figures that at least one of the records has a value of."""
    known = list(records)
    return [each for each in figures if any(_has(each, record) for record in known)]


def known_latencies(records: Iterable[Mapping[str, Any]]) -> list[Latency]:
    """The latencies that at least one of the records has a statistic of."""
    known = list(records)
    return [
        each for each in LATENCIES if present([each.figure(name) for name in STATISTICS], known)
    ]


def _has(figure: Figure, record: Mapping[str, Any]) -> bool:
    if figure.of_rated and not finite(record.get("request_rate")):
        return False
    return finite(record.get(figure.key)) is not None
