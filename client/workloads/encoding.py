"""Text and conversations as the model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenization import Tokenizer

# Between the messages of a conversation for a model without a chat template.
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text, its token ids and which of the two start with the beginning-of-sequence token."""

    text: str
    token_ids: tuple[int, ...]
    ids_have_bos: bool
    text_has_bos: bool


def encode_text(text: str, tokenizer: Tokenizer, templated: bool = False) -> Encoded:
    """The text with its ids. A templated text brings its own beginning of sequence.

    Raises `TokenizerError` for text that cannot be tokenized.
    """
    token_ids = tokenizer.encode(text, bos=not templated)
    has_bos = bool(token_ids) and token_ids[0] == tokenizer.bos_id
    return Encoded(text, tuple(token_ids), has_bos, has_bos and templated)


def encode_chat(messages: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> Encoded:
    """A conversation of (role, content) through the model's chat template.

    Without a template the contents are joined by empty lines. Raises `TokenizerError` when the
    template refuses the messages or the text cannot be tokenized.
    """
    if tokenizer.chat is None:
        return encode_text(_BETWEEN.join(content for _, content in messages), tokenizer)
    rendered = tokenizer.chat.render(
        [{"role": role, "content": content} for role, content in messages]
    )
    return encode_text(rendered, tokenizer, templated=True)
