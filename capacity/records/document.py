"""The files of records."""

import json
from pathlib import Path
from typing import Any

from client.errors import UsageError

RUN, SWEEP, OFFLINE = "loadstone-run-1", "loadstone-sweep-1", "loadstone-offline-1"
READABLE = (RUN, SWEEP, OFFLINE)
_STATES = ("sweep.json", "offline.json")


def record_files(path: Path) -> list[Path]:
    """The records that a path stands for: itself, or those of a folder, a state before runs.

    Raises `UsageError` for a folder without any.
    """
    if not path.is_dir():
        return [path]
    for name in _STATES:
        if (path / name).exists():
            return [path / name]
    found = sorted(
        each for each in path.glob("loadstone-*.json") if not each.name.endswith(".outputs.json")
    )
    if not found:
        raise UsageError(f"{path}: no record ({', '.join(_STATES)}, loadstone-*.json) in it")
    return found


def read_document(path: Path) -> dict[str, Any]:
    """A record. UsageError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    form = document.get("format") if isinstance(document, dict) else None
    if form not in READABLE:
        raise UsageError(f"{path} has the format {form!r}; this reads {', '.join(READABLE)}")
    return document
