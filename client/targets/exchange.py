"""One request under way: what was sent, and everything that came back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.reading.pieces import Coming, Pieces

OK = "OK"
TIMEOUT = "timeout"
CONNECTION_LOST = "connection lost"
STREAM_REFUSED = "stream refused"
STREAM_RESET = "stream reset"
MALFORMED = "malformed answer"
CLIENT_LIMIT = "client out of files or ports"


@dataclass(slots=True)
class Exchange:
    """Filled in by a target while the clock runs; read after the run. Times: `time.perf_counter()`.

    It holds what came as it came, so that almost all parsing waits until nothing is measured.
    """

    # When the load plan wanted it sent, and when it was.
    scheduled: float | None = None
    sent: float | None = None
    # When the stream ended, whatever the reason; None while it is open.
    ended: float | None = None
    # (arrival time, content) in order. What the content is, the target knows: bytes from a wire.
    arrivals: list[tuple[float, Any]] = field(default_factory=list)
    # The same in columns, where a thread in C kept it; then `arrivals` is empty.
    pieces: Pieces | Coming | None = None
    # OK, or the cause of the failure; None while the stream is open.
    status: str | None = None
    detail: str = ""

    @property
    def tokens(self) -> int:
        """Roughly the tokens so far, for the progress line only."""
        return len(self.came)

    @property
    def came(self) -> Sequence[tuple[float, Any]]:
        """The content, however it was kept."""
        return self.arrivals if self.pieces is None else self.pieces

    def end(self, time: float, status: str, detail: str = "") -> None:
        """Closes the exchange; only the first end counts."""
        if self.status is None:
            self.ended, self.status, self.detail = time, status, detail


class Piece(NamedTuple):
    """What one message brought."""

    time: float
    token_ids: Sequence[int]
    text: str


# (times, counts) of the messages of an answer that brought token ids, and how many each brought.
IdCounts = tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An exchange's messages, parsed. None where the server did not say.

    `singles`, in place of `pieces`: the time of each message of a stream that brought one token a
    message by the server's own count, and whose text nobody wants. `by_ids`, in place of `pieces`:
    what messages with token ids brought, where nobody wants text and ids. `prompt_tokens` and
    `completion_tokens` are the server's own counts. `queue` and `prefill` are its own timings,
    seconds. `failure` is a (cause, detail) found in the content of a stream that ended well on the
    wire.
    """

    pieces: Sequence[Piece]
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    queue: float | None = None
    prefill: float | None = None
    failure: tuple[str, str] | None = None
    singles: Sequence[float] | NDArray[np.float64] = ()
    by_ids: IdCounts | None = None
