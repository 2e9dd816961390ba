"""What the scheduler may ask of an engine. Imports no JAX, as nothing on the host does."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Finish(Enum):
    """Why generation ended."""

    STOP = "stop"  # an end-of-sequence token (or, decided on the host, a stop string)
    LENGTH = "length"  # max_tokens reached


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; top_k 0 and top_p 1 mean no limit."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class PrefillChunk:
    """A run of prompt tokens for one slot, at most `EngineShape.chunk` long.

    `start` is the absolute position of the first of them (0 opens the slot). With the chunk marked
    `last` the engine samples the first token and the slot takes part in decode from then on; the
    fields below `last` count only there.
    """

    slot: int
    tokens: Sequence[int]
    start: int
    last: bool
    sampling: Sampling = Sampling()
    max_tokens: int = 1
    ignore_eos: bool = False
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `finish` is set on the last of a slot, which is free afterwards."""

    slot: int
    token_id: int
    logprob: float | None
    finish: Finish | None


@dataclass(frozen=True)
class PrefillSize:
    """A prefill dispatch of up to `rows` chunks with up to `tokens` tokens each."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class EngineShape:
    """The fixed sizes of an engine, counts of tokens or slots. `prefills` grow in tokens.

    `positions` is how many there are in a model that learned each of them: a prompt is at most so
    long, and a request ends (`Finish.LENGTH`) with the token that would be read behind the last.
    None where any number goes.
    """

    slots: int
    cache_length: int
    prefills: tuple[PrefillSize, ...]
    vocab: int
    eos_ids: frozenset[int]
    positions: int | None = None

    def most_tokens(self, prompt: int, asked: int) -> int:
        """How many of the `asked` tokens can follow a prompt. The last one needs no position."""
        return asked if self.positions is None else min(asked, self.positions - prompt + 1)

    @property
    def chunk(self) -> int:
        """The most tokens of one prompt in a dispatch."""
        return self.prefills[-1].tokens

    def prefill_size(self, tokens: int) -> PrefillSize:
        """Of the dispatch that takes chunks of up to `tokens` tokens. ValueError above `chunk`."""
        for size in self.prefills:
            if size.tokens >= tokens:
                return size
        raise ValueError(f"a chunk of {tokens} tokens; at most {self.chunk} are read at once")


class Step(Protocol):
    """Work under way on the device."""

    def tokens(self) -> list[Token]:
        """Waits for the device and returns the tokens made, in order, finished slots included."""


class Engine(Protocol):
    """Slots on a device. Every method is called from one thread and returns without waiting.

    Slots that are not active (never prefilled, finished or released) give no tokens. Positions past
    the cache length are legal: a slot then attends to its last `cache_length` tokens.
    """

    @property
    def shape(self) -> EngineShape:
        """The fixed sizes."""

    def prefill(self, chunks: Sequence[PrefillChunk]) -> Step:
        """Reads one chunk for each of some slots, as many as `prefill_size` of the longest says.

        ValueError, and nothing is read, when there are more, or one is too long or goes past the
        positions of the model.
        """

    def decode(self) -> Step:
        """Makes one token (or the configured few) for every active slot."""

    def release(self, slot: int) -> None:
        """Stops a slot early. Tokens of steps already under way may still name it."""
