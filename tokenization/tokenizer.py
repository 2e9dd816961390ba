"""A model's tokenizer: text to ids, ids to text, messages to ids."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenization.chat import ChatTemplate
from tokenization.errors import TokenizerError
from tokenization.pieces import Pieces


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Reads and writes one model's token ids. Safe to share between threads.

    Made by `load_tokenizer`. `encode_text` is the file's own encoder, without BOS; `add_bos` says
    whether the model wants BOS in front of a prompt. Generation ends at any of `eos_ids`.
    """

    encode_text: Callable[[str], list[int]] = field(repr=False)
    pieces: Pieces = field(repr=False)
    bos_id: int | None
    eos_ids: frozenset[int]
    add_bos: bool
    chat: ChatTemplate | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.add_bos and self.bos_id is None:
            raise TokenizerError("add_bos is set but the tokenizer names no BOS token")
        control = self.eos_ids | ({self.bos_id} if self.bos_id is not None else set())
        object.__setattr__(self, "pieces", self.pieces.without_text(control))

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return len(self.pieces.table)

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Returns the ids of `text`, after BOS if `bos` and the model uses one.

        The names of special tokens inside the text (such as <|im_end|>) become those tokens, as
        with Hugging Face tokenizers. Raises TokenizerError for text that is not valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text has half a surrogate pair at character {error.start}; "
                "replace it before encoding"
            ) from error
        ids = self.encode_text(text)
        return [self.bos_id, *ids] if bos and self.add_bos and self.bos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`. Control tokens and ids outside the vocabulary give none.

        Bytes that are not valid UTF-8 become U+FFFD.
        """
        return self.pieces.join(ids, opening=True)[0].decode("utf-8", "replace")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the ids of a conversation, up to where the assistant is to speak.

        A message has a `role` and a `content`. Raises TokenizerError if the model has no chat
        template or its template refuses the messages.
        """
        if self.chat is None:
            raise TokenizerError(
                "the tokenizer has no chat template; send the prompt as plain text, or add a "
                "chat_template to tokenizer_config.json"
            )
        return self.encode(self.chat.render(messages), bos=False)
