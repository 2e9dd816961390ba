"""Words for made-up prompts: tokens that stay themselves when their text is tokenized again."""

import re
from dataclasses import dataclass

import numpy as np

from tokenization import Tokenizer

# Tried in this order. A word with a space before it is a piece of its own in almost every
# tokenizer, so words in a row do not merge; single letters are for vocabularies of bytes.
_KINDS = (rb" [a-z]{2,}", rb"[a-z]{2,}", rb"[a-zA-Z0-9]", rb"[ -~]+")
# Fewer would make prompts too much alike.
_ENOUGH = 32
# A token that goes on over a space: then words merge, and which ones no sample can tell.
_ACROSS = re.compile(rb"[A-Za-z] +[A-Za-z]").search


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token ids of ordinary text, as an array of Python integers.

    `proven`: no token goes on over a space, and a long text of all these tokens in random order
    came back as the same ids; so texts of them can be trusted to do so.
    """

    ids: np.ndarray
    proven: bool

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> list[int]:
        """The ids at these places. The integers are shared: 8 bytes a token and not 40."""
        return self.ids[indices % len(self.ids)].tolist()


def ordinary_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The first kind of words that proves itself, or else the largest, not proven.

    Raises `ValueError` for a tokenizer without any token of plain text.
    """
    largest: list[int] = []
    provable = not any(_ACROSS(piece) for piece in tokenizer.pieces.table)
    for kind in _KINDS:
        found = _alone(kind, tokenizer)
        if provable and len(found) >= _ENOUGH and _come_back(found, tokenizer):
            return Vocabulary(np.array(found, dtype=object), proven=True)
        largest = max(largest, found, key=len)
    if not largest:
        raise ValueError("the tokenizer has no token of plain ASCII text to make prompts of")
    return Vocabulary(np.array(largest, dtype=object), proven=False)


def _alone(kind: bytes, tokenizer: Tokenizer) -> list[int]:
    """Tokens of this kind whose text alone comes back as themselves."""
    fits = re.compile(kind).fullmatch
    ids = [token_id for token_id, piece in enumerate(tokenizer.pieces.table) if fits(piece)]
    return [i for i in ids if tokenizer.encode(tokenizer.decode([i]), bos=False) == [i]]


def _come_back(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether all come back among others, each with two different tokens before it."""
    generator = np.random.default_rng(0)
    order = np.concatenate([generator.permutation(len(ids)) for _ in range(2)])
    mixed = [ids[index] for index in order]
    return tokenizer.encode(tokenizer.decode(mixed), bos=False) == mixed
