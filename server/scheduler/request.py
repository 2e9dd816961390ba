"""A request as the scheduler sees it: tokens in, tokens out, and where it stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from server.engine.protocol import Sampling


class State(Enum):
    """Where a request stands. It only ever moves forward."""

    NEW = "new"
    QUEUED = "queued"
    PREFILL = "prefill"  # holds a slot, part of its prompt not yet handed to the engine
    DECODE = "decode"  # its whole prompt was handed to the engine
    ENDED = "ended"


@dataclass(eq=False, slots=True)
class Request:
    """One prompt to complete. Times are seconds of the scheduler's clock, None until they happen.

    The fields up to `deadline` are the caller's and are not changed afterwards; the others belong
    to the scheduler and may be read once an event tells of them. Two requests are never equal.
    """

    id: int
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    ignore_eos: bool = False
    logprobs: bool = False
    deadline: float | None = None

    state: State = State.NEW
    slot: int | None = None
    prompt_read: int = 0  # prompt tokens handed to the engine
    joined: int = 0  # decode steps before the first that it takes part in
    generated: int = 0  # tokens that came back
    queued_at: float | None = None
    prefill_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(f"request {self.id} has an empty prompt; give at least 1 token")
        if self.max_tokens < 1:
            raise ValueError(
                f"request {self.id} asks for max_tokens {self.max_tokens}; ask for at least 1"
            )
