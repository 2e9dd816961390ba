"""Tokenizers in sentencepiece's tokenizer.model format."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from tokenization.errors import TokenizerError
from tokenization.pieces import SPACE, Pieces, fallback_byte
from tokenization.special_tokens import read_special_tokens
from tokenization.tokenizer import Tokenizer


def load_sentencepiece(path: Path) -> Tokenizer:
    """Loads a tokenizer.model, with what the files beside it say of special tokens.

    Raises TokenizerError if the file cannot be read.
    """
    model = read_model(path.read_bytes(), path)
    special = read_special_tokens(path.parent, partial(_id_of, model))
    pieces = model_pieces(model)
    names = control_names(model) | {text: token_id for text, (token_id, _) in special.added.items()}
    for text, (token_id, control) in special.added.items():
        pieces = pieces.with_piece(token_id, b"" if control else text.encode())
    bos_id = special.bos_id if special.bos_named else _or_none(model.bos_id())
    eos_id = _or_none(model.eos_id())
    return Tokenizer(
        encode_text=encoder(model, names),
        pieces=pieces,
        bos_id=bos_id,
        eos_ids=special.eos_ids or frozenset({eos_id} if eos_id is not None else ()),
        add_bos=bos_id is not None and special.add_bos is not False,
        chat=special.chat,
    )


def read_model(content: bytes, path: Path) -> SentencePieceProcessor:
    """Parses a sentencepiece model; `path` is named in the error."""
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(content)
    except (RuntimeError, ValueError) as error:
        raise TokenizerError(f"{path} is not a sentencepiece model: {error}") from error
    return model


def model_pieces(model: SentencePieceProcessor) -> Pieces:
    """The pieces of a model, as its own decoder writes them."""
    table = [_piece(model, token_id) for token_id in range(model.get_piece_size())]
    # The library drops one space of a piece at the start if it puts one there when encoding, or if
    # it removes extra ones; then again and again, until there is text.
    spaced = [i for i, piece in enumerate(table) if model.id_to_piece(i)[:1] == SPACE and piece]
    drops = any(model.decode([i]).encode() != table[i] for i in spaced[:1])
    lone = model.piece_to_id(SPACE)
    return Pieces(
        table,
        openings={i: table[i][1:] for i in spaced} if drops else {},
        opening_repeats=drops and lone in spaced and model.decode([lone, lone]) == "",
    )


def control_names(model: SentencePieceProcessor) -> dict[str, int]:
    """The ids of control and unknown tokens by their text."""
    return {
        model.id_to_piece(token_id): token_id
        for token_id in range(model.get_piece_size())
        if model.is_control(token_id) or model.is_unknown(token_id)
    }


def encoder(model: SentencePieceProcessor, names: Mapping[str, int]) -> Callable[[str], list[int]]:
    """Encodes with the model, but each of `names` inside a text as the token of that name."""
    longest_first = sorted(names, key=len, reverse=True)
    # (?!) matches nothing.
    pattern = re.compile("|".join(re.escape(name) for name in longest_first) or "(?!)")
    return partial(_encode_around, model, pattern, names)


def _encode_around(
    model: SentencePieceProcessor, pattern: re.Pattern[str], names: Mapping[str, int], text: str
) -> list[int]:
    ids: list[int] = []
    at = 0
    for match in pattern.finditer(text):
        ids += model.encode(text[at : match.start()])
        ids.append(names[match.group()])
        at = match.end()
    return ids + model.encode(text[at:])


def _piece(model: SentencePieceProcessor, token_id: int) -> bytes:
    if model.is_control(token_id):
        return b""
    if model.is_unknown(token_id):
        return model.decode([token_id]).encode()  # the model may name its own sign for it
    token = model.id_to_piece(token_id)
    byte = fallback_byte(token) if model.is_byte(token_id) else None
    return token.replace(SPACE, " ").encode() if byte is None else bytes([byte])


def _id_of(model: SentencePieceProcessor, token: str) -> int | None:
    token_id = model.piece_to_id(token)
    return token_id if model.id_to_piece(token_id) == token else None


def _or_none(token_id: int) -> int | None:
    return token_id if token_id >= 0 else None
