"""tiktoken files as Llama 3 has them, against the tiktoken library."""

import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import write_tiktoken

from tokenization import Tokenizer, TokenizerError, load_tokenizer


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, tiktoken.Encoding]:
    path = tmp_path_factory.mktemp("tiktoken") / "tokenizer.model"
    library = write_tiktoken(path)
    return load_tokenizer(path.parent), library


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_any_text_comes_back(pair: tuple[Tokenizer, tiktoken.Encoding], text: str) -> None:
    tokenizer, library = pair
    ids = tokenizer.encode(text, bos=False)
    assert tokenizer.decode(ids) == library.decode(ids) == text


def test_words_are_merged_within_themselves(
    pair: tuple[Tokenizer, tiktoken.Encoding],
) -> None:
    tokenizer, library = pair
    # " the" begins with its space; "12" is a token but "123" one word; "  " leaves a space to "b".
    for text, words in [
        ("the the", ["the", " the"]),
        ("12345", ["123", "45"]),
        ("   b", ["  ", " b"]),
        ("ri\n\n\nthe", ["ri", "\n\n\n", "the"]),
    ]:
        expected = [i for word in words for i in library.encode(word)]
        assert tokenizer.encode(text, bos=False) == expected


def test_llama3_special_tokens(pair: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    tokenizer, library = pair
    base = library.n_vocab
    assert tokenizer.vocab_size == base + 256
    assert tokenizer.bos_id == base and tokenizer.add_bos
    assert tokenizer.eos_ids == {base + 1, base + 8, base + 9}
    text = "<|begin_of_text|><|start_header_id|>ri<|eot_id|><|reserved_special_token_245|>"
    ids = tokenizer.encode(text)
    assert ids == [base, base, base + 6, *library.encode("ri"), base + 9, base + 255]
    assert tokenizer.decode(ids) == "ri"


def test_names_and_ends_from_config(tmp_path: Path) -> None:
    base = write_tiktoken(tmp_path / "tokenizer.model").n_vocab
    added = {str(base): {"content": "<b>"}, str(base + 3): {"content": "<e>", "special": True}}
    config = {"bos_token": "<b>", "eos_token": {"content": "<e>"}, "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model")
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (base, {base + 3})
    assert tokenizer.encode("a<e>") == [base, ord("a"), base + 3]


def test_very_long_runs(pair: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    tokenizer, _ = pair
    for text in (" " * 1_200_000, "a" * 100_000, "<|eot_id|>" * 1000):
        ids = tokenizer.encode(text, bos=False)
        assert tokenizer.decode(ids) in (text, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nYg== one\n", "line 2"),
        (b"YQ== 0\nY 1\n", "line 2"),
        (b"YQ== 0\nYg== 2\n", "ranks are not 0 to 1"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)
