"""The text whose perplexity is measured."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.workloads.hub import HubSettings, load_hub
from tokenization import Tokenizer, TokenizerError

_HUB = "hf:"
_COLUMN = "text"


@dataclass(frozen=True)
class TextSettings:
    """A file of plain text, or hf:NAME[:SPLIT] for a data set of Hugging Face's library.

    `tokens`: how many from its beginning, None for all. Rows of a data set are joined by empty
    lines, as its users do with WikiText.
    """

    name: str
    subset: str | None = None
    column: str | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 2:
            raise UsageError(f"--tokens: 2 or more; got {self.tokens}")
        if not self.name.startswith(_HUB) and (self.subset or self.column):
            raise UsageError("--hf-subset and --text-column are for --text hf:NAME[:SPLIT]")


@dataclass(frozen=True)
class Text:
    """A whole text, and how much of it counts."""

    settings: TextSettings
    whole: str

    def tokens(self, tokenizer: Tokenizer) -> list[int]:
        """The first of them, after a beginning-of-sequence token where the model wants one.

        Raises `UsageError` for less than two.
        """
        try:
            tokens = tokenizer.encode(self.whole)[: self.settings.tokens]
        except TokenizerError as error:
            raise UsageError(f"{self.settings.name} cannot be tokenized: {error}") from error
        if len(tokens) < 2:
            raise UsageError(f"{self.settings.name} has {len(tokens)} tokens; give 2 or more")
        return tokens

    @property
    def source(self) -> dict[str, Any]:
        """Where it is from, for a record."""
        return {
            "text": self.settings.name,
            "subset": self.settings.subset,
            "sha256": hashlib.sha256(self.whole.encode()).hexdigest(),
        }


def read_text(settings: TextSettings) -> Text:
    """The text. Raises `UsageError` where it cannot be read."""
    if settings.name.startswith(_HUB):
        return Text(settings, _of_hub(settings))
    return Text(settings, _of_file(Path(settings.name)))


def _of_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--text: cannot read {path}: {error}") from error


def _of_hub(settings: TextSettings) -> str:
    name, _, split = settings.name.removeprefix(_HUB).partition(":")
    column = settings.column or _COLUMN
    rows = load_hub(HubSettings(name, split or "test", settings.subset, column))
    if not len(rows) or column not in rows[0]:
        columns = ", ".join(rows[0]) if len(rows) else "none"
        raise UsageError(f"--text-column: {name} has no column {column!r}; it has {columns}")
    return "\n\n".join(str(row[column]) for row in rows)
