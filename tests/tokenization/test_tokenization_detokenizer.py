"""Text as it comes equals text at once, for every kind of tokenizer."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import (
    byte_level_library,
    spaced_library,
    train_sentencepiece,
    write_spm_gguf,
    write_tiktoken,
)

from tokenization import Detokenizer, Tokenizer, default_model_path, load_tokenizer

KINDS = ["smollm2", "tiktoken", "bytes", "spaced", "spm", "spm-plain", "spm-gguf"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llama_spm: bytes
) -> Tokenizer:
    return load_tokenizer(_file(request.param, tmp_path_factory.mktemp("kind"), llama_spm))


def _file(kind: str, folder: Path, llama_spm: bytes) -> Path:
    path = folder / "tokenizer.any"
    if kind == "smollm2":
        return default_model_path()
    if kind == "tiktoken":
        write_tiktoken(path)
    elif kind == "bytes":
        byte_level_library().save(str(path))
    elif kind == "spaced":
        spaced_library().save(str(path))
    elif kind == "spm-gguf":
        write_spm_gguf(path, llama_spm)
    else:
        plain = kind == "spm-plain"
        path.write_bytes(train_sentencepiece("unigram", keeps_spaces=False) if plain else llama_spm)
    return path


def _stream(tokenizer: Tokenizer, ids: list[int], sizes: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(detokenizer.push(ids[at : at + size]))
        at += size
    return [*pieces, detokenizer.push(ids[at:]), detokenizer.flush()]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), sizes=st.lists(st.integers(0, 4), max_size=30))
def test_any_text_in_any_portions(tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    ids = tokenizer.encode(text)
    pieces = _stream(tokenizer, ids, sizes)
    assert "".join(pieces) == tokenizer.decode(ids)
    # SmolLM2 lacks the bytes that only unassigned characters have.
    if "\ufffd" not in tokenizer.decode(ids):
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(0, 4), max_size=30))
def test_any_ids_in_any_portions(
    tokenizer: Tokenizer, data: st.DataObject, sizes: list[int]
) -> None:
    size = tokenizer.vocab_size
    ids = data.draw(st.lists(st.integers(0, size - 1) | st.integers(-2, size + 9), max_size=40))
    assert "".join(_stream(tokenizer, ids, sizes)) == tokenizer.decode(ids)


def test_a_character_waits_for_its_last_byte(smollm2: Tokenizer) -> None:
    ids = smollm2.encode("\u2603\U0002070e")
    assert len(ids) >= 4
    detokenizer = Detokenizer(smollm2)
    texts = [detokenizer.push([token_id]) for token_id in ids]
    assert "".join(texts) == "\u2603\U0002070e"
    assert "" in texts and detokenizer.flush() == ""


def test_an_unfinished_character_is_flushed_as_a_replacement(smollm2: Tokenizer) -> None:
    detokenizer = Detokenizer(smollm2)
    assert detokenizer.push(smollm2.encode("\U0002070e")[:1]) == ""
    assert detokenizer.flush() == "\ufffd"


def test_ends_give_no_text(tokenizer: Tokenizer) -> None:
    for token_id in tokenizer.eos_ids:
        assert Detokenizer(tokenizer).push([token_id]) == ""


def test_late_tokens_cost_no_more_than_early_ones(smollm2: Tokenizer) -> None:
    ids = smollm2.encode("The river runs to the sea. " * 4000)
    detokenizer = Detokenizer(smollm2)
    start = time.perf_counter()
    for token_id in ids:
        detokenizer.push([token_id])
    # 28000 tokens take 30 ms; decoding all that came before each would take minutes.
    assert time.perf_counter() - start < 5
