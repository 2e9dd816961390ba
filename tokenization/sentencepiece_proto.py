"""Writes a sentencepiece model file's message from a vocabulary with scores.

The classes in the sentencepiece wheel need a newer protobuf than our stubs are made for, so the few
fields are written here. Numbers: sentencepiece_model.proto of google/sentencepiece.
"""

import struct
from collections.abc import Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of piece

_BPE = 2
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of the model
_PIECE, _SCORE, _KIND = 1, 2, 3  # fields of a piece
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35  # fields of the trainer, then its first ids
_UNK_ID, _BOS_ID, _EOS_ID = 40, 41, 42
_UNK_PIECE, _BOS_PIECE, _EOS_PIECE = 45, 46, 47
_NAME, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES = 1, 3, 4, 5  # fields of the normalizer


def bpe_model(
    pieces: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    unk_id: int,
    bos_id: int | None,
    eos_id: int | None,
    add_dummy_prefix: bool,
) -> bytes:
    """Returns a BPE model that keeps all spaces and does not normalise text.

    One piece, score and kind (NORMAL, ...) per id. With any BYTE pieces unknown characters fall
    back to bytes. `add_dummy_prefix` puts a space in front of every text.
    """
    entries = b"".join(
        _message(_PIECES, _text(_PIECE, piece) + _float(_SCORE, score) + _number(_KIND, kind))
        for piece, score, kind in zip(pieces, scores, kinds, strict=True)
    )
    trainer = _number(_MODEL_TYPE, _BPE) + _number(_BYTE_FALLBACK, BYTE in kinds)
    named = ((_UNK_ID, _UNK_PIECE, unk_id), (_BOS_ID, _BOS_PIECE, bos_id))
    for number, name, token_id in (*named, (_EOS_ID, _EOS_PIECE, eos_id)):
        # -1 is how a model says that it has none.
        trainer += _number(number, -1 if token_id is None else token_id)
        trainer += b"" if token_id is None else _text(name, pieces[token_id])
    normalizer = _text(_NAME, "identity") + _number(_DUMMY_PREFIX, add_dummy_prefix)
    normalizer += _number(_REMOVE_SPACES, False) + _number(_ESCAPE_SPACES, True)
    return entries + _message(_TRAINER, trainer) + _message(_NORMALIZER, normalizer)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as unsigned 64-bit ones
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
