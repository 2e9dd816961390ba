"""GGUF files with byte-level vocabularies other than the default model's."""

from pathlib import Path

import gguf
import pytest

from tokenization import Tokenizer, load_tokenizer
from tokenization.gguf_metadata import read_gguf_metadata
from tokenization.pieces import byte_level_alphabet

WORDS = ["abc", "Ġabc", "12", "ĠĠ", "<|eot_id|>", "<|begin|>", "<user defined>"]


def _load(path: Path, **strings: str) -> Tokenizer:
    """A vocabulary of all bytes and WORDS, none of which can be reached by the one merge."""
    tokens = [*byte_level_alphabet(), *WORDS]
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    kinds += [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.USER_DEFINED]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(tokens.index("<|begin|>"))
    for key, value in strings.items():
        writer.add_string(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return load_tokenizer(path)


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token_id]) for token_id in tokenizer.encode(text, bos=False)]


@pytest.mark.parametrize(
    ("pre", "numbers", "whole", "bos"),
    [
        ("gpt-2", ["12", "12"], False, False),
        ("smollm", ["1", "2", "1", "2"], False, False),
        ("default", ["12", "1", "2"], False, False),  # cuts after three digits, here 121
        ("llama-bpe", ["12", "1", "2"], True, True),
        ("llama3", ["12", "1", "2"], True, True),
        ("qwen2", ["1", "2", "1", "2"], False, False),
        ("tekken", ["1", "2", "1", "2"], True, True),
    ],
)
def test_each_way_of_splitting(
    tmp_path: Path, pre: str, numbers: list[str], whole: bool, bos: bool
) -> None:
    tokenizer = _load(tmp_path / "x.gguf", pre=pre)
    assert _pieces(tokenizer, "1212") == numbers
    assert _pieces(tokenizer, " abc") == ([" abc"] if whole else [" ", "a", "b", "c"])
    assert tokenizer.add_bos is bos


def test_a_file_that_names_no_way_splits_by_default(tmp_path: Path) -> None:
    assert _pieces(_load(tmp_path / "x.gguf"), "1212") == ["12", "1", "2"]


def test_added_tokens(tmp_path: Path) -> None:
    tokenizer = _load(tmp_path / "x.gguf", pre="gpt-2")
    ids = tokenizer.encode("a<user defined>b<|eot_id|>")
    assert len(ids) == 4 and tokenizer.eos_ids == {ids[-1]}
    assert tokenizer.decode(ids) == "a<user defined>b"


def test_values_of_every_type(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"u8": 7, "i8": -7, "u16": 700, "i16": -700}.items():
        kind = {"u": "uint", "i": "int"}[name[0]] + name[1:]
        getattr(writer, f"add_{kind}")(name, value)
    writer.add_uint64("u64", 1 << 40)
    writer.add_int64("i64", -(1 << 40))
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_key_value("f64s", [0.1, 0.2], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.FLOAT64)
    writer.add_key_value("u8s", [1, 2, 255], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8)
    writer.add_array("bools", [True, False])
    writer.add_array("texts", ["a", "", "é"])
    writer.add_string("last", "end")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    theirs = {
        key: field.contents()
        for key, field in gguf.GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }
    assert read_gguf_metadata(path) == theirs and theirs["last"] == "end"
