"""An engine that costs next to nothing and gives its tokens by the clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.engine.protocol import EngineShape, Finish, PrefillChunk, Token


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
    """Keeps `server.engine.protocol.Engine`. Its device works dispatches off one by one, each in
    the seconds that `decode(active slots, their positions)` and `prefill(chunks)` say.

    The id of a token is the number of its step (modulo the vocabulary), and `ready_times` has the
    time that each step was ready, so that a reader can tell how late a token came to it.
    """

    def __init__(
        self,
        shape: EngineShape,
        decode: Callable[[int, int], float],
        prefill: Callable[[Sequence[PrefillChunk]], float] = lambda chunks: 0.0,
    ) -> None:
        self.shape = shape
        self.ready_times: list[float] = []
        self._decode, self._prefill = decode, prefill
        self._left: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._free_at = 0.0

    def prefill(self, chunks: Sequence[PrefillChunk]) -> PacedStep:
        """Reads chunks of prompts."""
        for chunk in chunks:
            if chunk.last:
                self._left[chunk.slot] = chunk.max_tokens
                self._positions[chunk.slot] = chunk.start + len(chunk.tokens)
        return self._step([chunk.slot for chunk in chunks if chunk.last], self._prefill(chunks))

    def decode(self) -> PacedStep:
        """A token for every active slot, one step after the last."""
        for slot in self._left:
            self._positions[slot] += 1
        live = sum(self._positions[slot] for slot in self._left)
        return self._step(list(self._left), self._decode(len(self._left), live))

    def release(self, slot: int) -> None:
        """Stops a slot."""
        self._left.pop(slot, None)

    def _step(self, slots: list[int], seconds: float) -> PacedStep:
        number = len(self.ready_times) % self.shape.vocab
        self._free_at = max(self._free_at, time.monotonic()) + seconds
        self.ready_times.append(self._free_at)
        return PacedStep([self._token(slot, number) for slot in slots], self._free_at)

    def _token(self, slot: int, number: int) -> Token:
        left = self._left[slot] - 1
        if left:
            self._left[slot] = left
            return Token(slot, number, None, None)
        del self._left[slot]
        return Token(slot, number, None, Finish.LENGTH)
