"""An engine in this process, under the server's own scheduler: what the wire costs is left out.

The one door from the client to the server's rooms.
"""

import asyncio
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from client.errors import DoesNotFitError, NotReadyError, UsageError
from client.targets.exchange import OK, TIMEOUT, Answer, Exchange, Piece
from client.targets.settings import TargetSettings
from client.workloads.prompt import Prompt

if TYPE_CHECKING:
    from server.assembly import JaxEngine, Uncached
    from server.engine.protocol import PrefillChunk
    from server.scheduler import EngineLoop, Event, Request


class InProcessTarget:
    """Requests go to the scheduler as token ids and come back as its events."""

    def __init__(self, settings: TargetSettings, engine: "LocalEngine | None" = None) -> None:
        """`engine`: one that is open; else the settings say what to open."""
        self._settings = settings
        self._local = engine
        self._ids = count()
        self._open: dict[Request, tuple[Exchange, asyncio.Future[None]]] = {}
        self._engine: EngineLoop | None = None

    async def open(self, report: Callable[[str], None]) -> None:
        """Loads and compiles the engine; see `Target.open`."""
        self._loop = asyncio.get_running_loop()
        local = self._local or LocalEngine(shlex.split(self._settings.engine))
        self._vocabulary = local.vocabulary
        self._engine = local.loop(self._sink)
        self._engine.start()

    def build(self, prompt: Prompt) -> "Request":
        """The scheduler's request. Raises `UsageError` for ids the model does not know."""
        from server.scheduler import Request, Sampling

        if max(prompt.token_ids) >= self._vocabulary:
            raise UsageError(
                f"prompt {prompt.id} holds token id {max(prompt.token_ids)}, but the model knows "
                f"{self._vocabulary}: is --tokenizer the model's?"
            )
        settings, number = self._settings, next(self._ids)
        seed = number if prompt.seed is None else prompt.seed
        sampling = Sampling(settings.temperature, settings.top_k, settings.top_p, seed=seed)
        return Request(
            number, prompt.token_ids, prompt.max_tokens, sampling, ignore_eos=settings.ignore_eos
        )

    async def ask(self, request: "Request", exchange: Exchange) -> None:
        """One request to the scheduler; see `Target.ask`."""
        from server.scheduler import Refused

        engine = self._engine
        assert engine is not None, "a target is opened before it is asked"
        ended = self._loop.create_future()
        self._open[request] = exchange, ended
        exchange.sent = time.perf_counter()
        try:
            engine.submit(request)
            async with asyncio.timeout(self._settings.request_timeout):
                await ended
        except Refused as error:
            exchange.end(time.perf_counter(), type(error).__name__, str(error))
        except TimeoutError:
            detail = f"no end within {self._settings.request_timeout:g} s"
            exchange.end(time.perf_counter(), TIMEOUT, detail)
        finally:
            del self._open[request]
            engine.cancel(request)

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        """What the scheduler told; see `Target.read`."""
        from server.scheduler import Finish

        pieces: list[Piece] = []
        finish, queue, prefill = None, None, None
        for arrived, event in exchange.arrivals:
            if event.tokens:
                pieces.append(Piece(arrived, tuple(token.token_id for token in event.tokens), ""))
            if isinstance(event.end, Finish):
                finish = event.end.value
            queue, prefill = _timings(event.request)
        return Answer(pieces, finish, queue=queue, prefill=prefill)

    async def close(self) -> None:
        """Stops the engine."""
        if self._engine is not None:
            self._engine.stop()

    def _sink(self, events: "Sequence[Event]") -> None:
        # Called from the engine's thread: this is when the tokens were there.
        self._loop.call_soon_threadsafe(self._deliver, time.perf_counter(), events)

    def _deliver(self, now: float, events: "Sequence[Event]") -> None:
        for event in events:
            exchange, ended = self._open.get(event.request, (None, None))
            if exchange is None or ended is None:
                continue
            exchange.arrivals.append((now, event))
            if event.end is not None and not ended.done():
                exchange.end(now, *_outcome(event.end))
                ended.set_result(None)


def import_server() -> None:
    """Loads the server's libraries, which takes seconds. Raises `UsageError` without them."""
    try:
        # Here and not above: the client is used without JAX.
        from server import assembly  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"an engine in this process needs the server extra ({error}): pip install "
            "'loadstone[server]'"
        ) from error


class LocalEngine:
    """An engine opened with options of `python -m server`; one target at a time may ask it.

    Raises `UsageError` without the server extra, `DoesNotFitError` for a setting that it refuses
    for want of memory, `NotReadyError` when it cannot be built for another reason. `engine` is for
    those who drive it themselves.
    """

    def __init__(self, words: Sequence[str], *, text: bool = True) -> None:
        """Without `text` it has no tokenizer and needs none."""
        import_server()
        from server import assembly

        with explained("the engine cannot be built"):
            options, parts = _parts(words, text)
            self.engine: JaxEngine = assembly.build_engine(options, parts)
        self.tokenizer = parts.tokenizer

    @property
    def vocabulary(self) -> int:
        """How many token ids it knows."""
        return self.engine.shape.vocab

    @property
    def summary(self) -> dict[str, Any]:
        """What it is and holds, by the names of `server.engine.summary.EngineSummary`."""
        return asdict(self.engine.summary)

    def loop(self, sink: "Callable[[list[Event]], None]") -> "EngineLoop":
        """A scheduler for it, not started."""
        from server.scheduler import EngineLoop

        for slot in range(self.engine.shape.slots):
            self.engine.release(slot)  # whatever an earlier target left there
        return EngineLoop(self.engine, sink)

    def losses(self, window: int, chunk: int) -> Callable[[Sequence[int]], np.ndarray]:
        """Reads up to `window` token ids from an empty cache, `chunk` at a time as a prompt is
        read: the loss of each but the first in nats, float32. Raises `NotReadyError`."""
        with explained("the text cannot be read"):
            reading = self.engine.reading(window, chunk)

        def losses(tokens: Sequence[int]) -> np.ndarray:
            with explained("the text cannot be read"):
                return reading.losses(tokens)

        return losses


def load_uncached(words: Sequence[str]) -> "Uncached":
    """For forwards without a KV cache, from options of `python -m server`; raises as `LocalEngine`
    does."""
    import_server()
    from server import assembly

    with explained("the engine cannot be built"):
        return assembly.build_uncached(*_parts(words, text=False))


def quantization_schemes() -> tuple[str, ...]:
    """The names of the ways that our engine stores weights."""
    from server.quant.schemes import SCHEMES

    return tuple(SCHEMES)


def attention_forms() -> tuple[str, ...]:
    """The names of our engine's attention."""
    from server.attention.names import IMPLEMENTATIONS

    return IMPLEMENTATIONS


def _parts(words: Sequence[str], text: bool) -> Any:
    """The options, and what an engine is built from."""
    from server import assembly
    from server import options as command_line

    options = command_line.parse(list(words))
    return options, assembly.choose_parts(options, text=text)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what an engine raises into `DoesNotFitError` and `NotReadyError`."""
    from server.assembly import DoesNotFitError as EngineDoesNotFit

    try:
        yield
    except EngineDoesNotFit as error:
        raise DoesNotFitError(str(error)) from error
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise NotReadyError(f"{what}: {error}") from error


def greedy_chunk(
    slot: int, tokens: Sequence[int], start: int, *, last: bool, max_tokens: int
) -> "PrefillChunk":
    """What an engine reads of a prompt whose answer ends after `max_tokens` and no earlier."""
    from server.engine.protocol import PrefillChunk

    return PrefillChunk(slot, tokens, start, last, max_tokens=max_tokens, ignore_eos=True)


def _outcome(end: Any) -> tuple[str, str]:
    from server.scheduler import Failure

    return (end.cause.value, end.message) if isinstance(end, Failure) else (OK, "")


def _timings(request: "Request") -> tuple[float | None, float | None]:
    queued, begun, first = request.queued_at, request.prefill_at, request.first_token_at
    if queued is None or begun is None or first is None:
        return None, None
    return begun - queued, first - begun
