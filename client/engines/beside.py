"""What is laid beside a run: an earlier one, and estimates."""

import json
from pathlib import Path
from typing import Any

from client.engines.cell import OFFLINE
from client.engines.entry import Entries, gather
from client.engines.measuring import Measuring
from client.engines.view import read_estimates
from client.errors import UsageError

# What must be alike for two runs to be compared.
_ALIKE = ("task", "prompts", "contexts", "new_tokens")


def read_earlier(path: Path, what: Measuring) -> Entries:
    """The entries of an earlier run, from its file or its folder.

    Raises `UsageError` when it cannot be read, or measured something else.
    """
    file = path / OFFLINE.file if path.is_dir() else path
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != OFFLINE.format:
            raise ValueError(f"format {OFFLINE.format} is read here, not {values['format']!r}")
        cells = [OFFLINE.read(each) for each in values["cells"]]
        settings = values["settings"]
        mine = what.as_json()
        differ = [
            f"{name} {settings[name]} there and {mine[name]} here"
            for name in _ALIKE
            if settings[name] != mine[name] and (name != "contexts" or mine["task"] != "generate")
        ]
    except OSError as error:
        raise UsageError(f"--against: cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"--against: {file} is not an offline.json of python -m client.offline: {error!r}"
        ) from error
    if differ:
        raise UsageError(f"--against: {file} measured something else: {'; '.join(differ)}")
    return gather(cells)


def load_estimates(path: Path) -> dict[str, dict[str, float]]:
    """Of --estimates. Raises `UsageError`."""
    try:
        return read_estimates(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--estimates: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--estimates: {path}: {error}") from error
