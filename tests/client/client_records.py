"""Records of requests for the tests of figures: drawn by hypothesis, or simple and by hand."""

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from client.results.arrivals import Arrivals
from client.results.records import Outcome, Record

SECONDS = st.floats(0, 100, allow_nan=False)


@st.composite
def a_record(draw: Callable, outcome: Outcome = Outcome.COMPLETED, timed: bool = False) -> Record:
    """Any request that was sent and brought tokens; `timed`: with the server's own timings."""
    scheduled = draw(SECONDS)
    sent = scheduled + draw(SECONDS)
    times = np.cumsum(draw(st.lists(SECONDS, min_size=1, max_size=8))) + sent
    counts = draw(st.lists(st.integers(1, 4), min_size=len(times), max_size=len(times)))
    return Record(
        index=0,
        prompt_id="",
        prompt_tokens=draw(st.integers(1, 50)),
        max_tokens=draw(st.integers(1, 50)),
        scheduled=scheduled,
        sent=sent,
        ended=float(times[-1]) + draw(SECONDS),
        arrivals=Arrivals.of(list(zip(times.tolist(), counts, strict=True))),
        outcome=outcome,
        cause="" if outcome is Outcome.COMPLETED else draw(st.sampled_from(["timeout", "full"])),
        server_queue=draw(SECONDS) if timed else None,
        server_prefill=draw(SECONDS) if timed else None,
    )


def expanded(record: Record) -> list[float]:
    """The arrival of each single token, one by one."""
    return [time for time, count in record.arrivals for _ in range(count)]


def streamed(
    arrivals: Sequence[tuple[float, int]],
    scheduled: float = 0.0,
    sent: float = 0.0,
    outcome: Outcome = Outcome.COMPLETED,
    index: int = 0,
) -> Record:
    """A request with these arrivals."""
    return Record(
        index=index,
        prompt_id=f"p{index}",
        prompt_tokens=10,
        max_tokens=100,
        scheduled=scheduled,
        sent=sent,
        ended=arrivals[-1][0] if arrivals else None,
        arrivals=Arrivals.of(arrivals),
        outcome=outcome,
    )
