"""Where the time to the first token went."""

from collections.abc import Sequence

from client.results.latency import PERCENTILES, due_at, sent_at, spread, ttft
from client.results.records import Record


def ttft_split(
    done: Sequence[Record], percentiles: Sequence[float] = PERCENTILES
) -> dict[str, float | None]:
    """The parts of TTFT from the scheduled time, over completed requests with server timings.

    `ttft_client_queue`: sent - scheduled. `ttft_server_queue` and `ttft_server_prefill`: what the
    server says. `ttft_rest`: all else: the network, the server's own streaming, the client's
    reading; below 0 where the server's timings claim more than there was. The four means add up to
    the mean TTFT from scheduled of these requests. Empty when the server gives no timings.
    """
    parts = [_parts(record) for record in done if _timed(record)]
    if not parts:
        return {}
    names = ("client_queue", "server_queue", "server_prefill", "rest")
    figures: dict[str, float | None] = {}
    for name, seconds in zip(names, zip(*parts, strict=True), strict=True):
        figures |= spread(f"ttft_{name}", seconds, percentiles)
    return figures


def _timed(record: Record) -> bool:
    return record.server_queue is not None and record.server_prefill is not None


def _parts(record: Record) -> tuple[float, float, float, float]:
    assert record.server_queue is not None and record.server_prefill is not None
    waited = sent_at(record) - due_at(record)
    served = record.server_queue + record.server_prefill
    rest = ttft(record, sent_at(record)) - served
    return waited, record.server_queue, record.server_prefill, rest
