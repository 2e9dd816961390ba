"""Tokenizers in Hugging Face's tokenizer.json format."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from tokenization.errors import TokenizerError
from tokenization.pieces import (
    SPACE,
    Pieces,
    byte_level_alphabet,
    byte_level_piece,
    fallback_byte,
)
from tokenization.special_tokens import end_ids, read_special_tokens
from tokenization.tokenizer import Tokenizer


def load_json(path: Path) -> Tokenizer:
    """Loads a tokenizer.json, with what the files beside it say of special tokens.

    Raises TokenizerError if the file cannot be read, or has a decoder that is neither byte level
    nor sentencepiece-like.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or "model" not in content:
        raise TokenizerError(f"{path} is not a tokenizer.json: it has no model")
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{path} cannot be read as a tokenizer.json: {error}") from error
    library.no_truncation()
    library.no_padding()

    special = read_special_tokens(path.parent, library.token_to_id)
    prefix = library.encode("", add_special_tokens=True).ids[:1]
    bos_id = special.bos_id if special.bos_named else next(iter(prefix), None)
    add_bos = special.add_bos if special.add_bos is not None else prefix == [bos_id]
    return Tokenizer(
        encode_text=partial(encode_plain, library),
        pieces=_pieces(library, _decoders(content.get("decoder")), path),
        bos_id=bos_id,
        eos_ids=special.eos_ids or end_ids(_control(library)),
        add_bos=add_bos and bos_id is not None,
        chat=special.chat,
    )


def encode_plain(library: tokenizers.Tokenizer, text: str) -> list[int]:
    """Encodes with the library, without the tokens it would put around a text."""
    return library.encode(text, add_special_tokens=False).ids


def byte_level_pieces(library: tokenizers.Tokenizer) -> Pieces:
    """The pieces of a GPT-2 style vocabulary."""
    alphabet = byte_level_alphabet()
    table = [byte_level_piece(token, alphabet) for token in _tokens(library)]
    return Pieces(table).without_text(_control(library).values())


def _pieces(library: tokenizers.Tokenizer, decoders: list[dict[str, Any]], path: Path) -> Pieces:
    kinds = [str(decoder.get("type")) for decoder in decoders]
    if "ByteLevel" in kinds:
        return byte_level_pieces(library)
    known = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if not kinds or not known.issuperset(kinds):
        raise TokenizerError(
            f"{path}: cannot stream text through the decoder {kinds or None}; allowed are "
            f"ByteLevel, or a sequence of {', '.join(sorted(known))}"
        )
    return _spaced_pieces(library, decoders, path)


def _spaced_pieces(
    library: tokenizers.Tokenizer, decoders: list[dict[str, Any]], path: Path
) -> Pieces:
    """Pieces of a vocabulary that writes spaces as U+2581, and maybe bytes as <0x0A>."""
    by_kind = {decoder["type"]: decoder for decoder in decoders}
    replaced = by_kind.get("Replace")
    if replaced and (replaced.get("pattern"), replaced.get("content")) != ({"String": SPACE}, " "):
        raise TokenizerError(
            f"{path}: the decoder replaces {replaced}, allowed is {SPACE} by space"
        )
    table = [
        _spaced_piece(
            token,
            spaces="Replace" in by_kind or "Metaspace" in by_kind,
            byte_fallback="ByteFallback" in by_kind,
        )
        for token in _tokens(library)
    ]
    return Pieces(table, _openings(table, by_kind)).without_text(_control(library).values())


def _spaced_piece(token: str, spaces: bool, byte_fallback: bool) -> bytes:
    byte = fallback_byte(token) if byte_fallback else None
    if byte is not None:
        return bytes([byte])
    return (token.replace(SPACE, " ") if spaces else token).encode()


def _openings(table: list[bytes], by_kind: dict[str, dict[str, Any]]) -> dict[int, bytes]:
    """What the library drops at the start: every space of the first token, or a few in front."""
    metaspace, strip = by_kind.get("Metaspace"), by_kind.get("Strip")
    if metaspace and metaspace.get("prepend_scheme", "always") != "never":
        return {i: piece.replace(b" ", b"") for i, piece in enumerate(table) if b" " in piece}
    count = int(strip["start"]) if strip and strip.get("content") == " " else 0
    return {i: _without_spaces(piece, count) for i, piece in enumerate(table) if piece[:1] == b" "}


def _without_spaces(piece: bytes, count: int) -> bytes:
    leading = len(piece) - len(piece.lstrip(b" "))
    return piece[min(count, leading) :]


def _decoders(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder.get("type") == "Sequence":
        return [inner for outer in decoder["decoders"] for inner in _decoders(outer)]
    return [decoder]


def _tokens(library: tokenizers.Tokenizer) -> list[str]:
    """Token texts by id; ids that are not in use are empty."""
    vocabulary = library.get_vocab(with_added_tokens=True)
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    return tokens


def _control(library: tokenizers.Tokenizer) -> dict[str, int]:
    added = library.get_added_tokens_decoder()
    return {token.content: token_id for token_id, token in added.items() if token.special}
