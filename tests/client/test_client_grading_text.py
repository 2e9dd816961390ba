"""The text whose perplexity is measured."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from client.errors import UsageError
from client.grading import text as texts
from client.grading.text import TextSettings, read_text
from client.workloads.hub import HubSettings
from tokenization import Tokenizer


def test_a_file_is_read_up_to_so_many_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "text"
    path.write_text("alphabet")
    text = read_text(TextSettings(str(path), tokens=5))
    assert text.tokens(tokenizer) == tokenizer.encode("alph")  # the first begins the sequence
    assert text.source["sha256"] == hashlib.sha256(b"alphabet").hexdigest()
    assert len(read_text(TextSettings(str(path))).tokens(tokenizer)) == 9


def test_rows_of_a_data_set_are_joined(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[HubSettings] = []

    def load(settings: HubSettings) -> list[dict[str, Any]]:
        asked.append(settings)
        return [{"text": "a", "page": "b"}, {"text": "c", "page": "d"}]

    monkeypatch.setattr(texts, "load_hub", load)
    assert read_text(TextSettings("hf:some/set", "raw")).whole == "a\n\nc"
    assert read_text(TextSettings("hf:set:validation", column="page")).whole == "b\n\nd"
    assert [(each.name, each.split, each.subset) for each in asked] == [
        ("some/set", "test", "raw"), ("set", "validation", None)
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no column 'words'; it has text, page"):
        read_text(TextSettings("hf:set", column="words"))


def test_what_cannot_be_read_is_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "text"
    for content in (None, b"\xff"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match="--text: cannot read"):
            read_text(TextSettings(str(path)))
    path.write_text("")
    with pytest.raises(UsageError, match="has 1 tokens; give 2 or more"):
        read_text(TextSettings(str(path))).tokens(tokenizer)
