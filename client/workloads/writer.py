"""Prompts of exactly so many tokens."""

from collections.abc import Sequence

import numpy as np

from client.workloads.prompt import Prompt
from client.workloads.vocabulary import Vocabulary, ordinary_vocabulary
from tokenization import Tokenizer

# Tokenizing is slow (about 1 us to 5 us a token), so of proven words only so many are checked.
_CHECKED_TOKENS = 20_000
_TRIES = 30


class Writer:
    """Makes prompts of ids of ordinary words, whose text is tokenized to those ids again.

    With words that are proven (see `Vocabulary`) this is checked for the first 20,000 tokens,
    with others for every prompt, and mended where it fails. `inexact` counts the prompts whose
    text could not be mended: their ids have the right number, their text gives others.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        self._unchecked = _CHECKED_TOKENS
        self.vocabulary: Vocabulary = ordinary_vocabulary(tokenizer)
        self.inexact = 0

    @property
    def shortest(self) -> int:
        """Tokens of the shortest prompt: one, after the beginning of sequence if there is one."""
        return len(self._bos) + 1

    def random(self, count: int, generator: np.random.Generator) -> list[int]:
        """`count` random words."""
        if not count:
            return []
        return self.vocabulary.take(generator.integers(len(self.vocabulary), size=count))

    def settle(self, words: Sequence[int], generator: np.random.Generator) -> list[int]:
        """As many ids, mended if need be, for prompts to share as their beginning."""
        prompt, _ = self._written("", words, 1, generator, 0)
        return list(prompt.token_ids)

    def write(
        self,
        name: str,
        words: Sequence[int],
        max_tokens: int,
        generator: np.random.Generator,
        keep: int = 0,
    ) -> Prompt:
        """A prompt of len(words) ids. With a beginning of sequence, it stands for the first word.

        Mending changes no id before `keep`, so prompts that share these go on sharing them.
        """
        prompt, exact = self._written(name, words, max_tokens, generator, keep)
        self.inexact += not exact
        return prompt

    def _written(
        self,
        name: str,
        words: Sequence[int],
        max_tokens: int,
        generator: np.random.Generator,
        keep: int,
    ) -> tuple[Prompt, bool]:
        start = len(self._bos)
        body, exact = list(words[start:]), True
        text = self._tokenizer.decode(body)
        if self._to_check(len(body)) and self._encode(text) != body:
            mended = self._mended(body, max(keep - start, 0), generator)
            exact = mended is not None
            body, text = mended or (body, text)
        prompt = Prompt(
            id=name,
            text=text,
            token_ids=(*self._bos, *body),
            max_tokens=max_tokens,
            ids_have_bos=bool(self._bos),
        )
        return prompt, exact

    def _to_check(self, tokens: int) -> bool:
        if not self.vocabulary.proven:
            return True
        self._unchecked -= tokens
        return self._unchecked + tokens > 0

    def _mended(
        self, body: list[int], keep: int, generator: np.random.Generator
    ) -> tuple[list[int], str] | None:
        """Ids of the same number and a text that gives them; None when none was found."""
        tried = body
        for _ in range(_TRIES):
            text = self._tokenizer.decode(tried)
            found = self._encode(text)
            if found[:keep] != body[:keep]:
                # What is kept merges with the word after it; another one may not.
                found = body[:keep]
            elif len(found) == len(body):
                return found, text
            missing = max(len(body) - len(found), 0)
            tried = [*found[: len(body)], *self.random(missing, generator)]
        return None

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, bos=False)
