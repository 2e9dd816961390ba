"""Tokenizers in tiktoken's format: a line for each token, its bytes in base64 and its rank."""

import base64
import re
from functools import partial
from pathlib import Path

import tiktoken

from tokenization.errors import TokenizerError
from tokenization.pieces import Pieces
from tokenization.special_tokens import end_ids, read_special_tokens
from tokenization.tokenizer import Tokenizer
from tokenization.word_split import LLAMA3

_SPECIAL_TOKENS = 256
# Those of the 256 that have a name; the rest are reserved, numbered in order.
_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    5: "<|step_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
    11: "<|image|>",
}
_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
# The library's expressions run out of stack on several hundred thousand spaces in a row.
_LONG_SPACE = re.compile(r"\s{20000}")
_OTHER_LAYOUT = 200_000  # Llama 4 and later vocabularies: other words, other special tokens


def is_tiktoken(content: bytes) -> bool:
    """Whether a tokenizer.model is tiktoken's format rather than sentencepiece's."""
    return _LINE.match(content) is not None


def load_tiktoken(path: Path) -> Tokenizer:
    """Loads Llama 3's tokenizer.model, with what the files beside it say of special tokens.

    Without such files the special tokens are Llama 3's, after the last rank. Raises TokenizerError
    if a line cannot be read, or the vocabulary is one with another layout.
    """
    ranks = _ranks(path)
    if len(ranks) >= _OTHER_LAYOUT:
        raise TokenizerError(
            f"{path} has {len(ranks)} ranks, which is not Llama 3's layout; "
            "use the model's tokenizer.json"
        )
    names = _special_names(len(ranks))
    special = read_special_tokens(path.parent, names.get)
    names = {text: token_id for text, (token_id, _) in special.added.items()} or names
    library = tiktoken.Encoding(
        path.name, pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=names
    )
    table = [b""] * (library.max_token_value + 1)
    for token, rank in ranks.items():
        table[rank] = token
    bos_id = special.bos_id if special.bos_named else names.get("<|begin_of_text|>")
    return Tokenizer(
        encode_text=partial(_encode, library),
        pieces=Pieces(table),
        bos_id=bos_id,
        eos_ids=special.eos_ids or end_ids(names),
        add_bos=bos_id is not None and special.add_bos is not False,
        chat=special.chat,
    )


def _encode(library: tiktoken.Encoding, text: str) -> list[int]:
    ids: list[int] = []
    at = 0
    for end in [*(match.end() for match in _LONG_SPACE.finditer(text)), len(text)]:
        ids += library.encode(text[at:end], allowed_special="all")
        at = end
    return ids


def _ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise TokenizerError(
                f"{path}, line {number}: expected a token in base64 and its rank, got {line[:40]!r}"
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(f"{path}: the ranks are not 0 to {len(ranks) - 1}, each once")
    return ranks


def _special_names(first: int) -> dict[str, int]:
    reserved = iter(range(_SPECIAL_TOKENS))
    return {
        _NAMED.get(index) or f"<|reserved_special_token_{next(reserved)}|>": first + index
        for index in range(_SPECIAL_TOKENS)
    }
