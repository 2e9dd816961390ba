"""What an engine must do to be measured. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Unavailable(Exception):
    """The engine, or this kind of weights, cannot run here at all."""


class DoesNotFit(Exception):
    """The engine would not start, since the setting needs more memory than there is."""


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself. Bytes are those of all devices together; None: not known.

    device: such as cpu or NVIDIA H100. attention: the form that runs. parameters: of the model,
    tied ones once. sizes: layers, heads, head_dim, hidden, vocab, tied (1: head and embedding
    are one), and window where attention has one.
    """

    device: str
    devices: int
    attention: str
    versions: dict[str, str]
    parameters: int
    sizes: dict[str, int]
    weight_bytes: int | None = None
    step_weight_bytes: int | None = None
    cache_bytes_per_position: int | None = None
    temporary_bytes: int | None = None


@dataclass(frozen=True)
class ColdStart:
    """Seconds to load libraries, to have the weights in place, and to compile."""

    imports: float
    load: float
    compile: float = 0.0


@dataclass(frozen=True)
class Made:
    """What generation gave: when each new position of the batch was there for its reader, by
    `time.perf_counter`, and the tokens of the first row."""

    stamps: list[float]
    first_row: list[int] = field(default_factory=list)


class Engine(Protocol):
    """One model on one device or several, ready to run."""

    cold: ColdStart

    def facts(self) -> Facts:
        """What it is; called when everything has run."""

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """Greedy tokens, `new` for each prompt, end-of-sequence ignored."""

    def window(self, rows: Sequence[Sequence[int]]) -> Any:
        """Rows of one length as the engine's own array, for the two below."""

    def advance(self, window: Any) -> Any:
        """One pass over all of the window without KV cache; it then ends with the next token of
        each row and has lost the first. Returns when the tokens are with the host."""

    def loss(self, window: Any) -> float:
        """Mean cross entropy of the next token, in nats, with the host."""

    def reset_peak(self) -> bool:
        """Begins to look for the device's peak of memory anew; False where it cannot."""

    def peak_bytes(self) -> int | None:
        """The most bytes the device's allocator gave out at a time; None for host memory."""
