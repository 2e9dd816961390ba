"""sentencepiece models and GGUF files of kind "llama" against the sentencepiece library."""

import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import train_sentencepiece, write_spm_gguf

from tokenization import Detokenizer, Tokenizer, load_tokenizer

TEXTS = [
    "The old bridge",
    " leading",
    "   three leading, two  inside, one trailing ",
    "caf\u00e9 \u6cb3\u4e0a \u6a4b \U0001f600",
    "line\n\nline\ttab",
    "",
    " ",
    "   ",
    "12 345 x<tool>y",
]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def plain_model(request: pytest.FixtureRequest) -> bytes:
    """Removes extra spaces and has no byte fallback."""
    return train_sentencepiece(request.param, keeps_spaces=False)


@pytest.fixture(scope="module", params=["file", "gguf"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llama_spm: bytes
) -> Tokenizer:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    if request.param == "gguf":
        return load_tokenizer(write_spm_gguf(path.with_suffix(".gguf"), llama_spm))
    path.write_bytes(llama_spm)
    return load_tokenizer(path.parent)


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_and_decodes_as_the_library(loaded: Tokenizer, llama_spm: bytes, text: str) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=llama_spm)
    ids = loaded.encode(text)
    assert ids == [library.bos_id(), *library.encode(text)]
    assert loaded.encode(text, bos=False) == library.encode(text)
    assert loaded.decode(ids) == library.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40).filter(lambda text: "<" not in text))
def test_any_text_as_the_library(loaded: Tokenizer, llama_spm: bytes, text: str) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=llama_spm)
    ids = library.encode(text)
    assert loaded.encode(text, bos=False) == ids
    assert loaded.decode(ids) == library.decode(ids)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_ids_but_broken_characters_as_the_library(
    loaded: Tokenizer, llama_spm: bytes, data: st.DataObject
) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=llama_spm)
    whole = [i for i in range(library.get_piece_size()) if not library.is_byte(i)]
    ids = data.draw(st.lists(st.sampled_from(whole), max_size=8))
    assert loaded.decode(ids) == library.decode(ids)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_model_that_removes_spaces(
    tmp_path_factory: pytest.TempPathFactory, plain_model: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.model"
    path.write_bytes(plain_model)
    tokenizer = load_tokenizer(path)
    library = sentencepiece.SentencePieceProcessor(model_proto=plain_model)
    ids = data.draw(st.lists(st.integers(0, library.get_piece_size() - 1), max_size=8))
    assert tokenizer.decode(ids) == library.decode(ids)


def test_all_spaces_at_the_start_go_where_the_model_removes_them(
    tmp_path: Path, plain_model: bytes
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(plain_model)
    library = sentencepiece.SentencePieceProcessor(model_proto=plain_model)
    space, word = library.piece_to_id("\u2581"), library.encode("the")[-1]
    ids = [space, space, word, space, space, word]
    assert load_tokenizer(tmp_path).decode(ids) == library.decode(ids)
    assert not library.decode(ids).startswith(" ")


def test_special_tokens_in_text_are_parsed(loaded: Tokenizer) -> None:
    assert loaded.bos_id == 1 and loaded.eos_ids == {2} and loaded.add_bos
    before, after = loaded.encode("old", bos=False), loaded.encode(" bridge", bos=False)
    assert loaded.encode("<s>old</s> bridge", bos=False) == [1, *before, 2, *after]


def test_the_first_space_goes_unless_the_text_continues(loaded: Tokenizer) -> None:
    ids = loaded.encode("the bridge", bos=False)
    assert Detokenizer(loaded).push(ids) == "the bridge"
    assert Detokenizer(loaded, continues=True).push(ids) == " the bridge"


def test_no_space_is_put_in_front_where_the_model_has_none(
    tmp_path: Path, llama_spm: bytes
) -> None:
    bare = train_sentencepiece("bpe", keeps_spaces=True, prefix=False)
    library = sentencepiece.SentencePieceProcessor(model_proto=bare)
    path = write_spm_gguf(tmp_path / "bare.gguf", bare, add_space_prefix=False, add_bos_token=False)
    tokenizer = load_tokenizer(path)
    for text in TEXTS:
        assert tokenizer.encode(text) == library.encode(text)
        assert tokenizer.decode(library.encode(text)) == text


def test_config_beside_the_model(tmp_path: Path, llama_spm: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(llama_spm)
    size = sentencepiece.SentencePieceProcessor(model_proto=llama_spm).get_piece_size()
    added = {
        str(size): {"content": "<|im_start|>", "special": True},
        str(size + 1): {"content": "<note>", "special": False},
    }
    config = {"add_bos_token": False, "eos_token": "</s>", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size]}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == size + 2
    assert tokenizer.eos_ids == {2, size}
    ids = tokenizer.encode("<|im_start|>old<note>")
    assert ids[0] == size and ids[-1] == size + 1
    assert tokenizer.decode(ids) == "old<note>"
