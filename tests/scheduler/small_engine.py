"""A whole engine in plain Python that keeps the engine contract and checks its caller's side."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.engine.protocol import EngineShape, Finish, PrefillChunk, PrefillSize, Sampling, Token

Chooser = Callable[[Sequence[int], int, Sampling], int]


class ContractBrokenError(AssertionError):
    """The scheduler asked for something that the engine contract forbids."""


def mixed(prompt: Sequence[int], index: int, sampling: Sampling) -> int:
    """A token in [0, 97) from the whole prompt, the index of the token and the seed."""
    return (sum((i + 1) * t for i, t in enumerate(prompt)) + 31 * index + sampling.seed) % 97


def echo(prompt: Sequence[int], index: int, sampling: Sampling) -> int:
    """The prompt again, over and over."""
    return prompt[index % len(prompt)]


@dataclass
class SlotState:
    prompt: list[int] = field(default_factory=list)
    chunk: PrefillChunk | None = None  # the last one, once it came
    made: int = 0

    @property
    def active(self) -> bool:
        return self.chunk is not None


@dataclass
class SmallStep:
    engine: "SmallEngine"
    made: list[Token]
    ready_at: float
    read: bool = False

    def tokens(self) -> list[Token]:
        self.engine.check(not self.read, "a step was read twice")
        self.engine.check(self.engine.unread[0] is self, "steps were read out of order")
        self.read = True
        self.engine.unread.pop(0)
        if not self.engine.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        time.sleep(max(0.0, self.ready_at - time.monotonic()))
        if self.engine.break_reads:
            raise RuntimeError("the device is on fire")
        return self.made


class SmallEngine:
    """Slots that work the moment they are asked, as a device queue would, and answer late.

    `gate` holds back every answer while it is clear. `refuses` tells which chunks raise ValueError.
    `calls` keeps what was asked: ("prefill", slots), ("decode", slots) or ("release", (slot,)).
    """

    def __init__(
        self,
        slots: int = 4,
        chunk: int = 8,
        prefill_batch: int = 2,  # of whole chunks; of half a chunk twice as many
        cache_length: int = 64,
        vocab: int = 128,
        eos_ids: frozenset[int] = frozenset(),
        choose: Chooser = mixed,
        tokens_per_decode: int = 1,
        step_seconds: float = 0.0,
        refuses: Callable[[PrefillChunk], bool] = lambda chunk: False,
    ) -> None:
        half = chunk // 2
        sizes = ((2 * prefill_batch, half),) * (half > 0) + ((prefill_batch, chunk),)
        prefills = tuple(PrefillSize(*size) for size in sizes)
        self.shape = EngineShape(slots, cache_length, prefills, vocab, eos_ids)
        self.choose = choose
        self.tokens_per_decode = tokens_per_decode
        self.step_seconds = step_seconds
        self.refuses = refuses
        self.slots: dict[int, SlotState] = {}
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.unread: list[SmallStep] = []
        self.gate = threading.Event()
        self.gate.set()
        self.break_reads = False
        self.break_decode = False
        self.threads: set[int] = set()
        self._free_at = 0.0

    def prefill(self, chunks: Sequence[PrefillChunk]) -> SmallStep:
        longest = max(len(chunk.tokens) for chunk in chunks)
        most = self.shape.prefill_size(longest).rows
        self.check(0 < len(chunks) <= most, f"{len(chunks)} chunks of up to {longest} tokens")
        self.check(len({c.slot for c in chunks}) == len(chunks), "a slot twice in one prefill")
        for chunk in chunks:
            if self.refuses(chunk):
                raise ValueError(f"cannot read the chunk at {chunk.start} of slot {chunk.slot}")
            self._check_chunk(chunk)
        self._note("prefill", tuple(c.slot for c in chunks))
        return self._step([token for chunk in chunks for token in self._read(chunk)])

    def decode(self) -> SmallStep:
        if self.break_decode:
            raise RuntimeError("the device is on fire")
        active = [slot for slot, state in sorted(self.slots.items()) if state.active]
        self._note("decode", tuple(active))
        return self._step([t for slot in active for t in self._make(slot, self.tokens_per_decode)])

    def release(self, slot: int) -> None:
        self.check(0 <= slot < self.shape.slots, f"slot {slot}")
        self._note("release", (slot,))
        self.slots.pop(slot, None)

    @property
    def active_slots(self) -> set[int]:
        return {slot for slot, state in self.slots.items() if state.active}

    def expected(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: Sampling | None = None,
        ignore_eos: bool = False,
    ) -> list[int]:
        """The tokens a request gets when nothing stops it."""
        tokens: list[int] = []
        for index in range(max_tokens):
            tokens.append(self.choose(prompt, index, sampling or Sampling()))
            if tokens[-1] in self.shape.eos_ids and not ignore_eos:
                break
        return tokens

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            raise ContractBrokenError(what)

    def _check_chunk(self, chunk: PrefillChunk) -> None:
        self.check(0 <= chunk.slot < self.shape.slots, f"slot {chunk.slot}")
        self.check(0 < len(chunk.tokens) <= self.shape.chunk, f"{len(chunk.tokens)} tokens")
        state = self.slots.get(chunk.slot)
        self.check(state is None or not state.active, f"slot {chunk.slot} is still decoding")
        read = len(state.prompt) if state else 0
        self.check(chunk.start == read, f"chunk at {chunk.start} after {read} tokens")
        full = len(chunk.tokens) == self.shape.chunk
        self.check(chunk.last or full, "a short chunk that is not the last")

    def _read(self, chunk: PrefillChunk) -> list[Token]:
        state = self.slots.setdefault(chunk.slot, SlotState())
        state.prompt.extend(chunk.tokens)
        if not chunk.last:
            return []
        state.chunk = chunk
        return self._make(chunk.slot, 1)

    def _make(self, slot: int, count: int) -> list[Token]:
        tokens: list[Token] = []
        while len(tokens) < count and (state := self.slots.get(slot)) and state.chunk:
            ask = state.chunk
            token_id = self.choose(state.prompt, state.made, ask.sampling)
            state.made += 1
            finish = None
            if token_id in self.shape.eos_ids and not ask.ignore_eos:
                finish = Finish.STOP
            elif state.made >= ask.max_tokens:
                finish = Finish.LENGTH
            logprob = -(token_id % 7) / 8 if ask.logprobs else None
            tokens.append(Token(slot, token_id, logprob, finish))
            if finish:
                del self.slots[slot]
        return tokens

    def _step(self, made: list[Token]) -> SmallStep:
        self._free_at = max(self._free_at, time.monotonic()) + self.step_seconds
        step = SmallStep(self, made, self._free_at)
        self.unread.append(step)
        self.check(len(self.unread) <= 2, f"{len(self.unread)} steps under way at once")
        return step

    def _note(self, what: str, slots: tuple[int, ...]) -> None:
        self.calls.append((what, slots))
        self.threads.add(threading.get_ident())
        self.check(len(self.threads) == 1, "the engine was called from two threads")
