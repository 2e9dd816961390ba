"""Text from tokens as they come."""

import codecs
from collections.abc import Sequence

from tokenization.tokenizer import Tokenizer


class Detokenizer:
    """Turns the tokens of one sequence into text piece by piece.

    The pieces and the flush together are `tokenizer.decode` of all ids. Work is bounded per token:
    at most three bytes of an unfinished character are held. With `continues` the text goes on from
    a prompt, so the space that sentencepiece drops at the start of a text is kept.
    """

    def __init__(self, tokenizer: Tokenizer, continues: bool = False) -> None:
        self._pieces = tokenizer.pieces
        self._opening = not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        """Returns the text that became final with `ids`; an unfinished character waits."""
        data, self._opening = self._pieces.join(ids, self._opening)
        return self._utf8.decode(data)

    def flush(self) -> str:
        """Returns what an unfinished character leaves at the end: U+FFFD, or nothing."""
        return self._utf8.decode(b"", final=True)
