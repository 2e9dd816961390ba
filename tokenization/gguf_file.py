"""Tokenizers inside GGUF files."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from tokenization.chat import ChatTemplate
from tokenization.errors import TokenizerError
from tokenization.gguf_metadata import read_gguf_metadata
from tokenization.json_file import byte_level_pieces, encode_plain
from tokenization.pieces import Pieces
from tokenization.sentencepiece_file import control_names, encoder, model_pieces, read_model
from tokenization.sentencepiece_proto import CONTROL, UNKNOWN, USER_DEFINED, bpe_model
from tokenization.special_tokens import end_ids
from tokenization.tokenizer import Tokenizer
from tokenization.word_split import word_split

_KEY = "tokenizer.ggml."
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_Parts = tuple[Callable[[str], list[int]], Pieces, bool]  # the encoder, pieces, BOS by default


def load_gguf(path: Path) -> Tokenizer:
    """Loads the tokenizer of a GGUF file.

    Raises TokenizerError if the file cannot be read, has no tokenizer, or one of a kind other than
    "gpt2" (bytes and merges) and "llama" (sentencepiece with scores).
    """
    metadata = read_gguf_metadata(path)
    kind = metadata.get(_KEY + "model")
    if kind is None:
        raise TokenizerError(f"{path} holds no tokenizer: it has no {_KEY}model")
    loaders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if kind not in loaders:
        raise TokenizerError(f"{path} has a tokenizer of kind {kind!r}, allowed: {list(loaders)}")
    fields = {key.removeprefix(_KEY): value for key, value in metadata.items()}
    try:
        encode_text, pieces, bos_by_default = loaders[kind](fields, path)
        control = _of_kind(fields, CONTROL)
    except KeyError as error:
        raise TokenizerError(f"{path} lacks {_KEY}{error.args[0]}") from error
    except TokenizerError:
        raise
    except ValueError as error:
        raise TokenizerError(f"{path} has a broken vocabulary: {error}") from error
    bos_id = fields.get("bos_token_id")
    ends = frozenset(fields[key] for key in _ENDS if key in fields)
    return Tokenizer(
        encode_text=encode_text,
        pieces=pieces,
        bos_id=bos_id,
        eos_ids=ends | end_ids(control),
        add_bos=bos_id is not None and fields.get("add_bos_token", bos_by_default),
        chat=_chat(metadata, fields),
    )


def _byte_level(fields: Mapping[str, Any], path: Path) -> _Parts:
    split = word_split(fields.get("pre", "default"))
    vocabulary = {token: token_id for token_id, token in enumerate(fields["tokens"])}
    # A merge is two tokens with a space between; the first may itself start with a space.
    at = [(merge, merge.index(" ", 1)) for merge in fields["merges"]]
    merges = [(merge[:space], merge[space + 1 :]) for merge, space in at]
    try:
        model = models.BPE(vocabulary, merges, ignore_merges=split.whole_words)
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{path}: the vocabulary and merges do not fit: {error}") from error
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = split.splitter
    for kind, control in ((CONTROL, True), (USER_DEFINED, False)):
        library.add_tokens(
            [
                AddedToken(token, special=control, normalized=False)
                for token in _of_kind(fields, kind)
            ]
        )
    return partial(encode_plain, library), byte_level_pieces(library), split.adds_bos


def _sentencepiece(fields: Mapping[str, Any], path: Path) -> _Parts:
    tokens, kinds = fields["tokens"], fields["token_type"]
    content = bpe_model(
        tokens,
        fields["scores"],
        kinds,
        unk_id=fields.get("unknown_token_id", kinds.index(UNKNOWN) if UNKNOWN in kinds else 0),
        bos_id=fields.get("bos_token_id"),
        eos_id=fields.get("eos_token_id"),
        add_dummy_prefix=fields.get("add_space_prefix", True),
    )
    model = read_model(content, path)
    return encoder(model, control_names(model)), model_pieces(model), True


def _of_kind(fields: Mapping[str, Any], kind: int) -> dict[str, int]:
    pairs = enumerate(zip(fields["tokens"], fields["token_type"], strict=True))
    return {token: token_id for token_id, (token, its_kind) in pairs if its_kind == kind}


def _chat(metadata: Mapping[str, Any], fields: Mapping[str, Any]) -> ChatTemplate | None:
    source = metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    tokens = fields["tokens"]
    names = {"bos_token": "bos_token_id", "eos_token": "eos_token_id"}
    given = {name: fields.get(key, len(tokens)) for name, key in names.items()}
    return ChatTemplate(source, {name: tokens[i] for name, i in given.items() if i < len(tokens)})
