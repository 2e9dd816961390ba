"""Log-probabilities of the chosen tokens, in the two forms that OpenAI has."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from server.scheduler import Token
from tokenization import Detokenizer, Tokenizer


@dataclass(frozen=True)
class Entry:
    """One token: the text that became final with it, its own bytes, the natural logarithm of its
    probability, and how many characters came before it.
    """

    text: str
    data: bytes
    logprob: float
    offset: int


class Entries:
    """Makes the entries of one choice from its tokens. Without a tokenizer a token is written
    as `token_id:ID`.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._text = None if tokenizer is None else Detokenizer(tokenizer, continues=True)
        self._offset = 0

    def read(self, tokens: Sequence[Token]) -> list[Entry]:
        """The entries of the next tokens."""
        return [self._entry(token) for token in tokens]

    def _entry(self, token: Token) -> Entry:
        if self._tokenizer is None or self._text is None:
            text = f"token_id:{token.token_id}"
            data = text.encode()
        else:
            text = self._text.push([token.token_id])
            data = self._tokenizer.pieces.join([token.token_id], opening=False)[0]
        entry = Entry(text, data, token.logprob or 0.0, self._offset)
        self._offset += len(text)
        return entry


def completion_logprobs(entries: Sequence[Entry]) -> str:
    """The JSON of /v1/completions."""
    return json.dumps(
        {
            "tokens": [entry.text for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": None,
            "text_offset": [entry.offset for entry in entries],
        }
    )


def chat_logprobs(entries: Sequence[Entry]) -> str:
    """The JSON of /v1/chat/completions."""
    content = [
        {
            "token": entry.text,
            "logprob": entry.logprob,
            "bytes": list(entry.data),
            "top_logprobs": [],
        }
        for entry in entries
    ]
    return json.dumps({"content": content, "refusal": None})
