"""Drives an engine by hand, and checks what it says against the plain model."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.engine.engine import JaxEngine
from server.engine.protocol import PrefillChunk, Sampling, Step, Token
from tests.models.plain import plain_logits
from tests.models.tiny import Tensors

Said = dict[int, list[Token]]
GREEDY = Sampling()


@dataclass(frozen=True)
class Ask:
    """A request and the slot to put it in."""

    slot: int
    prompt: Sequence[int]
    max_tokens: int = 8
    sampling: Sampling = GREEDY
    ignore_eos: bool = True
    logprobs: bool = True

    def chunks(self, size: int) -> list[PrefillChunk]:
        """The prompt in runs of up to `size` tokens."""
        starts = range(0, len(self.prompt), size)
        return [
            PrefillChunk(
                self.slot,
                self.prompt[start : start + size],
                start,
                start + size >= len(self.prompt),
                self.sampling,
                self.max_tokens,
                self.ignore_eos,
                self.logprobs,
            )
            for start in starts
        ]


def prompt_of(length: int, seed: int = 0, vocab: int = 128) -> list[int]:
    """Random token ids."""
    return list(map(int, np.random.RandomState(seed).randint(0, vocab, length)))


def collect(said: Said, *steps: Step) -> None:
    """Adds the tokens of steps by slot."""
    for step in steps:
        for token in step.tokens():
            said[token.slot].append(token)


def prefill(engine: JaxEngine, asks: Sequence[Ask], said: Said, size: int | None = None) -> None:
    """Whole prompts: as many rows a dispatch as the engine takes."""
    size = size or engine.shape.chunk
    longest = min(size, max(len(ask.prompt) for ask in asks))
    together = engine.shape.prefill_size(longest).rows
    for first in range(0, len(asks), together):
        waiting = [ask.chunks(size) for ask in asks[first : first + together]]
        while any(waiting):
            collect(said, engine.prefill([rest.pop(0) for rest in waiting if rest]))


def finish(engine: JaxEngine, said: Said, slots: Sequence[int], ahead: int = 0) -> None:
    """Decodes until the slots have finished, `ahead` dispatches in flight; bounded."""
    flight: list[Step] = []
    for _ in range(1000):
        if all(said[slot] and said[slot][-1].finish for slot in slots):
            break
        flight.append(engine.decode())
        if len(flight) > ahead:
            collect(said, flight.pop(0))
    else:
        raise AssertionError(f"slots {slots} do not finish: {dict(said)}")
    collect(said, *flight)


def generate(
    engine: JaxEngine, asks: Sequence[Ask], size: int | None = None, ahead: int = 0
) -> dict[int, list[Token]]:
    """All asks to their end, side by side. Nothing but their slots may speak."""
    said: Said = defaultdict(list)
    prefill(engine, asks, said, size)
    finish(engine, said, [ask.slot for ask in asks], ahead)
    assert set(said) == {ask.slot for ask in asks}
    return dict(said)


def ids(tokens: Sequence[Token]) -> list[int]:
    """Token ids."""
    return [token.token_id for token in tokens]


def assert_greedy(
    source: Tensors,
    ask: Ask,
    tokens: Sequence[Token],
    window: int,
    int8_kv: bool = False,
    bound: float = 1e-3,
) -> None:
    """Each token is the plain model's best, to `bound`, and so is its log-probability."""
    assert len(tokens) == ask.max_tokens
    text = [*ask.prompt, *ids(tokens)[:-1]]
    scores = plain_logits(source, text, window, int8_kv)[len(ask.prompt) - 1 :]
    chosen = scores[np.arange(len(tokens)), ids(tokens)]
    assert (scores.max(-1) - chosen).max() <= bound
    expected = chosen - np.logaddexp.reduce(scores, -1)
    assert np.abs([token.logprob for token in tokens] - expected).max() <= bound
