"""The record of a row: what was measured, on what, how, and what came out. One JSON file."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.grading.row import Row
from client.results.files import write_whole

# Changes when a reader of older records would misread a newer one.
FORMAT = "loadstone-quality-1"
PARTS = ("speed", "perplexity", "humaneval")
# Of the host; records of one folder are compared, so nothing else may change between them.
_MAY_CHANGE = ("node", "platform")


@dataclass(frozen=True)
class QualityRecord:
    """`engine`: sizes of what was opened, None for another server's. `parts`: those of PARTS that
    are finished, with their settings. `failed`: why the rest could not be measured."""

    command: str
    date: str
    model: str
    tokenizer: str
    row: Row
    settings: dict[str, Any]
    host: dict[str, Any]
    engine: dict[str, Any] | None
    parts: dict[str, dict[str, Any]]
    failed: str | None = None

    def with_part(self, name: str, figures: dict[str, Any]) -> "QualityRecord":
        """The record with one part more."""
        return replace(self, parts=self.parts | {name: figures}, failed=None)

    def of_engine(self, summary: dict[str, Any] | None) -> "QualityRecord":
        """The record of a row whose engine is open."""
        return replace(self, engine=summary, failed=None)

    def continued(self, command: "QualityRecord") -> "QualityRecord":
        """What is there already, to go on with under another command."""
        asked = {name: value for name, value in command.settings.items() if value is not None}
        return replace(self, settings=self.settings | asked)

    def as_json(self) -> dict[str, Any]:
        """Named after what a run's record calls them."""
        return {
            "format": FORMAT,
            "command": self.command,
            "date": self.date,
            "model_id": self.model,
            "tokenizer_id": self.tokenizer,
            "weights": self.row.weights,
            "kv_cache": self.row.kv_cache,
            "engine": self.engine,
            **{name: self.parts.get(name) for name in PARTS},
            "failed": self.failed,
            "settings": self.settings,
            "host": self.host,
        }

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all. Raises OSError."""
        text = json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(path, text + "\n")


def load(path: Path) -> QualityRecord | None:
    """The record in a file, None without one. Raises `UsageError` when it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {FORMAT} is read here, not {values['format']!r}")
        return QualityRecord(
            command=values["command"],
            date=values["date"],
            model=values["model_id"],
            tokenizer=values["tokenizer_id"],
            row=Row(values["weights"], values["kv_cache"]),
            settings=values["settings"],
            host=values["host"],
            engine=values["engine"],
            parts={name: values[name] for name in PARTS if values[name] is not None},
            failed=values["failed"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is not a record of quality: {error!r}; give another --out"
        ) from error


def check_same(found: QualityRecord, wanted: QualityRecord, path: Path) -> None:
    """Raises `UsageError`, naming what differs, where what is there was measured otherwise.

    Parts that only one of the two was asked for do not matter.
    """
    asked = [name for name in PARTS if found.settings.get(name) and wanted.settings.get(name)]
    pairs = [
        (name, found.settings.get(name), value)
        for name, value in wanted.settings.items()
        if name not in PARTS
    ]
    pairs += [
        (f"{part}, {name}", found.settings[part].get(name), value)
        for part in asked
        for name, value in wanted.settings[part].items()
    ]
    pairs += [
        (name, found.host.get(name), value)
        for name, value in wanted.host.items()
        if name not in _MAY_CHANGE
    ]
    differ = [
        f"{name} was {json.dumps(before)} and is now {json.dumps(now)}"
        for name, before, now in pairs
        if before != now
    ]
    if differ:
        raise UsageError(
            f"{path} was measured otherwise: {'; '.join(differ)}; give another --out, or the "
            "same settings"
        )
