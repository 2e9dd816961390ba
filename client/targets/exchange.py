"""One request under way: what was sent, and every message that came back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

OK = "OK"
TIMEOUT = "timeout"
CONNECTION_LOST = "connection lost"
STREAM_REFUSED = "stream refused"
STREAM_RESET = "stream reset"


@dataclass(slots=True)
class Exchange:
    """Filled in by a target while the clock runs; read after the run. Times: `time.perf_counter()`.

    It holds raw bytes, so that almost all parsing waits until nothing is being measured.
    """

    # When the load plan wanted it sent, and when it was.
    scheduled: float | None = None
    sent: float | None = None
    # When the stream ended, whatever the reason; None while it is open.
    ended: float | None = None
    # (arrival time, message) in order, empty messages included.
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    # Tokens so far, for the progress line only.
    tokens: int = 0
    # OK, or the cause of the failure; None while the stream is open.
    status: str | None = None
    detail: str = ""

    def end(self, time: float, status: str, detail: str = "") -> None:
        """Closes the exchange."""
        self.ended, self.status, self.detail = time, status, detail


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of one message."""

    time: float
    token_ids: Sequence[int]
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An exchange's messages, parsed. None where the server did not say.

    `prompt_tokens` and `completion_tokens` are the server's own counts. `queue` and `prefill` are
    its own timings, seconds.
    """

    pieces: Sequence[Piece]
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    queue: float | None = None
    prefill: float | None = None
