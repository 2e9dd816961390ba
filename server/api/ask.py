"""What a client asks for, whichever wire it came by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Conversation:
    """Messages for the model's chat template; each has a `role` and a `content`."""

    messages: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Names:
    """What a wire calls the fields of an Ask, so that a refusal names what its reader wrote.

    `truncate` None: the wire has no way to ask for it.
    """

    text: str
    ids: str
    max_tokens: str = "max_tokens"
    truncate: str | None = None


@dataclass(frozen=True)
class Ask:
    """One completion, not checked yet.

    `content` is a text, token ids or a conversation. `max_tokens` None asks for what the server
    gives. `has_bos`: no beginning-of-sequence token is put before the content. `truncate` keeps
    the last tokens of a prompt that is too long. `seed` None takes a random one. `text` False
    leaves the text out of the pieces. `deadline` is in seconds of time.monotonic().
    """

    names: Names
    content: str | Sequence[int] | Conversation
    max_tokens: int | None
    has_bos: bool = False
    truncate: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    text: bool = True
    logprobs: bool = False
    ignore_eos: bool = False
    deadline: float | None = None
