"""tokenizer.json and the files beside it, against the tokenizers library."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level_library, spaced_library
from tokenizers import Tokenizer as Library
from tokenizers import decoders

from tokenization import Tokenizer, TokenizerError, load_tokenizer


def _load(folder: Path, library: Library, **files: object) -> Tokenizer:
    library.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load_tokenizer(folder)


@pytest.fixture(scope="module", params=["bytes", "spaced", "unstripped", "metaspace"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Library]:
    library = {
        "bytes": byte_level_library,
        "spaced": spaced_library,
        "unstripped": lambda: spaced_library(start=0),
        "metaspace": spaced_library,
    }[request.param]()
    if request.param == "metaspace":
        library.decoder = decoders.Metaspace()
    return _load(tmp_path_factory.mktemp("json"), library), library


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40).filter(lambda text: "<" not in text))
def test_any_text_as_the_library(pair: tuple[Tokenizer, Library], text: str) -> None:
    tokenizer, library = pair
    library.no_truncation()
    ids = library.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, bos=False) == ids
    assert tokenizer.decode(ids) == library.decode(ids)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_ids_but_broken_characters_as_the_library(
    pair: tuple[Tokenizer, Library], data: st.DataObject
) -> None:
    tokenizer, library = pair
    size = library.get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size + 5), max_size=8))
    ours = tokenizer.decode(ids)
    # The library writes U+FFFD once a byte for broken sequences of <0x..> tokens.
    if "\ufffd" not in ours:
        assert ours == library.decode(ids)


def test_bos_as_the_post_processor_puts_it(tmp_path: Path) -> None:
    tokenizer = _load(tmp_path, byte_level_library())
    assert tokenizer.bos_id == 0 and tokenizer.add_bos
    assert tokenizer.encode("old")[0] == 0 and tokenizer.encode("old", bos=False)[0] != 0
    assert tokenizer.encode("")[0] == 0
    assert tokenizer.eos_ids == {2}  # by its name, <|im_end|>


@pytest.mark.parametrize(
    ("config", "bos_id", "add_bos"),
    [
        ({"bos_token": "<|bos|>"}, 0, True),
        ({"bos_token": {"content": "<|bos|>"}, "add_bos_token": False}, 0, False),
        ({"bos_token": "<|im_start|>", "add_bos_token": True}, 1, True),
        ({"bos_token": None}, None, False),
    ],
)
def test_bos_as_the_config_says(
    tmp_path: Path, config: dict, bos_id: int | None, add_bos: bool
) -> None:
    tokenizer = _load(tmp_path, byte_level_library(), tokenizer_config=config)
    assert (tokenizer.bos_id, tokenizer.add_bos) == (bos_id, add_bos)
    ids = tokenizer.encode("old", bos=False)
    assert tokenizer.encode("old") == ([bos_id, *ids] if add_bos else ids)


def test_a_null_bos_outweighs_the_model_config(tmp_path: Path) -> None:
    # As in Qwen2's files.
    files = {"tokenizer_config": {"bos_token": None}, "config": {"bos_token_id": 1}}
    assert _load(tmp_path, byte_level_library(), **files).bos_id is None


def test_bos_from_the_model_config(tmp_path: Path) -> None:
    assert _load(tmp_path, byte_level_library(), config={"bos_token_id": 1}).bos_id == 1


def test_all_ends_are_gathered(tmp_path: Path) -> None:
    tokenizer = _load(
        tmp_path,
        byte_level_library(),
        generation_config={"eos_token_id": [7, 8]},
        config={"eos_token_id": 9},
        special_tokens_map={"eos_token": "<|im_end|>"},
    )
    assert tokenizer.eos_ids == {2, 7, 8, 9}
    assert tokenizer.decode([2, 7, 8, 9]) == ""


def test_a_long_prompt_is_not_cut(tmp_path: Path) -> None:
    tokenizer = _load(tmp_path, byte_level_library())
    assert len(tokenizer.encode("x " * 50)) > 50


def test_a_decoder_that_cannot_be_streamed_is_named(tmp_path: Path) -> None:
    library = byte_level_library()
    library.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerError, match=r"WordPiece.*allowed are ByteLevel"):
        _load(tmp_path, library)
