"""What Prometheus sees.

Names with `jetstream_` are JetStream's, with its meaning, so its dashboards and autoscaling rules
go on working; `loadstone_` names have no counterpart there. Times are seconds.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from server.scheduler import Cause, Event, Failure, Request, Stats

_LENGTHS = tuple(2**power for power in range(18))
_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_FIRST_TOKEN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.75, 1, 2, 5, 10, 20, 50, 100)
_PER_TOKEN = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_PER_PROMPT_TOKEN = tuple(m * 10.0**e for e in range(-5, -1) for m in (1, 2, 5))
_REQUEST = (0.1, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms in a registry of their own. Used from the event loop."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: Iterable[float]) -> Histogram:
            return Histogram(name, text, buckets=tuple(buckets), registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.model_load_time = Gauge(
            "jetstream_model_load_time", "Seconds taken to load the model", registry=registry
        )
        self.server_startup_latency = Gauge(
            "jetstream_server_startup_latency",
            "Seconds from the start of the process until requests were taken",
            registry=registry,
        )
        self._queued = histogram("jetstream_queue_duration", "Seconds a request was queued", _WAITS)
        self._waited = histogram(
            "jetstream_wait_time_per_request",
            "Seconds a request was neither prefilled nor decoded",
            _WAITS,
        )
        self._input = histogram("jetstream_request_input_length", "Prompt tokens", _LENGTHS)
        self._output = histogram("jetstream_request_output_length", "Generated tokens", _LENGTHS)
        self._first = histogram(
            "jetstream_time_to_first_token",
            "Seconds from arrival to the first token",
            _FIRST_TOKEN,
        )
        self._per_token = histogram(
            "jetstream_time_per_output_token",
            "Seconds a token after the first one took, averaged over a request",
            _PER_TOKEN,
        )
        self._per_prompt_token = histogram(
            "jetstream_time_per_prefill_token",
            "Seconds of prefill for each prompt token",
            _PER_PROMPT_TOKEN,
        )
        self._total = histogram(
            "jetstream_time_per_request", "Seconds from arrival to the last token", _REQUEST
        )
        self._done = counter("jetstream_request_success_count", "Requests that finished")
        self._tokens = counter("loadstone_tokens_generated", "Tokens generated for all requests")
        self._cancelled = counter(
            "loadstone_requests_cancelled", "Requests whose client gave them up"
        )
        self._failed = counter(
            "loadstone_requests_failed", "Requests that failed after they were taken", ("cause",)
        )
        self._refused = counter(
            "loadstone_requests_refused", "Requests that were not taken in", ("cause",)
        )

    def watch(self, stats: Callable[[], Stats], lost: Callable[[], bool]) -> None:
        """Adds the gauges that are read at each scrape."""
        self.registry.register(_Gauges(stats, lost))

    def refuse(self, cause: str) -> None:
        """Counts a request that was not taken in."""
        self._refused.labels(cause).inc()

    def count(self, events: list[Event]) -> None:
        """Counts the tokens and ends of one step."""
        self._tokens.inc(sum(len(event.tokens) for event in events))
        for event in events:
            if isinstance(event.end, Failure):
                self._count_failure(event.end)
            elif event.end is not None:
                self._count_success(event.request)

    def _count_failure(self, failure: Failure) -> None:
        if failure.cause is Cause.CANCELLED:
            self._cancelled.inc()
        else:
            self._failed.labels(failure.cause.value).inc()

    def _count_success(self, request: Request) -> None:
        self._done.inc()
        self._input.observe(len(request.prompt))
        self._output.observe(request.generated)
        queued, begun = request.queued_at, request.prefill_at
        first, ended = request.first_token_at, request.ended_at
        if queued is None or begun is None or first is None or ended is None:
            return
        self._queued.observe(begun - queued)
        self._waited.observe(begun - queued)
        self._first.observe(first - queued)
        self._per_prompt_token.observe((first - begun) / len(request.prompt))
        self._total.observe(ended - queued)
        if request.generated > 1:
            self._per_token.observe((ended - first) / (request.generated - 1))


class _Gauges(Collector):
    """The scheduler's counts at the moment of a scrape, all from one snapshot."""

    def __init__(self, stats: Callable[[], Stats], lost: Callable[[], bool]) -> None:
        self._stats = stats
        self._lost = lost

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now = self._stats()
        nothing = "Always 0: prefill writes straight into the slot that decodes"
        for name, text, value in (
            ("jetstream_prefill_backlog_size", "Requests queued", now.queued),
            ("jetstream_transfer_backlog_size", nothing, 0),
            ("jetstream_generate_backlog_size", nothing, 0),
            (
                "jetstream_slots_used_percentage",
                "Part of the slots in use, from 0 to 1",
                (now.prefilling + now.decoding) / now.slots,
            ),
            ("loadstone_slots", "Slots of the engine", now.slots),
            ("loadstone_slots_prefilling", "Slots reading a prompt", now.prefilling),
            ("loadstone_slots_decoding", "Slots generating", now.decoding),
            ("loadstone_engine_up", "0 once the engine is lost", 0 if self._lost() else 1),
        ):
            yield GaugeMetricFamily(name, text, value)
