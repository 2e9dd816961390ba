"""Models by name, or by a directory with a config.json."""

import json
from pathlib import Path

from capacity.names import suggest
from client.errors import UsageError
from server.models.catalogue import catalogue
from server.models.families import spec_from_config
from server.models.spec import ModelSpec


def find_model(name: str) -> ModelSpec:
    """A name of the catalogue, or a directory or file of a Hugging Face config.

    Raises `UsageError` naming the nearest names.
    """
    known = catalogue()
    if name in known:
        return known[name]
    path = Path(name)
    config = path / "config.json" if path.is_dir() else path
    if config.suffix == ".json" and config.exists():
        try:
            return spec_from_config(path.name, json.loads(config.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--model {name}: {error}") from error
    raise UsageError(
        f"model {name!r} is neither a known name nor a directory with a config.json; "
        f"{suggest(name, known)}"
    )
