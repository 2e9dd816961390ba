"""One thing to ask a server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and how many tokens to ask for.

    `token_ids` are what the model reads, with the beginning-of-sequence token where it wants one.
    `ids_have_bos` and `text_has_bos` say which of the two forms starts with that token already.
    `reference` is the answer in the data set, of `reference_tokens` tokens; `max_tokens` is what is
    asked for. `messages` is the conversation up to this request as (role, content), for targets
    that speak in chats; when empty it is one message of the user, `text`. `seed` of sampling; None
    leaves it to the target.
    """

    id: str
    text: str
    token_ids: tuple[int, ...]
    max_tokens: int
    ids_have_bos: bool = False
    text_has_bos: bool = False
    reference: str = ""
    reference_tokens: int = 0
    messages: tuple[tuple[str, str], ...] = ()
    seed: int | None = None

    @property
    def chat(self) -> tuple[tuple[str, str], ...]:
        """The conversation as (role, content), never empty."""
        return self.messages or (("user", self.text),)
