"""An engine that costs next to nothing and gives its tokens by the clock."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.protocol import EngineShape, Finish, PrefillChunk, PrefillSize, Token

VOCAB = 1 << 16


@dataclass
class PacedStep:
    """Tokens that are there at `ready_at`, seconds of time.monotonic()."""

    made: list[Token]
    ready_at: float

    def tokens(self) -> list[Token]:
        """Waits until they are there."""
        wait = self.ready_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        return self.made


class PacedEngine:
    """Keeps `server.engine.protocol.Engine`. Decode steps take `step_seconds`, prefill none.

    The id of a token is the number of its step (modulo VOCAB), and `ready_times` has the time that
    each step was ready, so that a reader can tell how late a token came to it.
    """

    def __init__(self, slots: int, step_seconds: float) -> None:
        self.shape = EngineShape(
            slots=slots,
            cache_length=1 << 20,
            prefills=(PrefillSize(slots, 64),),
            vocab=VOCAB,
            eos_ids=frozenset(),
        )
        self.ready_times: list[float] = []
        self._step_seconds = step_seconds
        self._left: dict[int, int] = {}
        self._free_at = 0.0

    def prefill(self, chunks: Sequence[PrefillChunk]) -> PacedStep:
        """Reads prompts in no time."""
        for chunk in chunks:
            if chunk.last:
                self._left[chunk.slot] = chunk.max_tokens
        return self._step([chunk.slot for chunk in chunks if chunk.last], 0.0)

    def decode(self) -> PacedStep:
        """A token for every active slot, one step after the last."""
        return self._step(list(self._left), self._step_seconds)

    def release(self, slot: int) -> None:
        """Stops a slot."""
        self._left.pop(slot, None)

    def _step(self, slots: list[int], seconds: float) -> PacedStep:
        number = len(self.ready_times) % VOCAB
        self._free_at = max(self._free_at + seconds, time.monotonic())
        self.ready_times.append(self._free_at)
        return PacedStep([self._token(slot, number) for slot in slots], self._free_at)

    def _token(self, slot: int, number: int) -> Token:
        left = self._left[slot] - 1
        if left:
            self._left[slot] = left
            return Token(slot, number, None, None)
        del self._left[slot]
        return Token(slot, number, None, Finish.LENGTH)
