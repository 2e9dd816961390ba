"""From a model's name to the files that every engine reads it from."""

import json
import tomllib
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from client.engines.ask import Model
from client.errors import UsageError

# The model that comes with us, with its trained weights.
EMBEDDED = "smollm2-135m"


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """Hugging Face configs of every model known by name."""
    text = (resources.files("client.engines") / "models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def find_model(name: str, folder: Path, embedded: Callable[[], Path]) -> Model:
    """A known name (random weights), a folder with config.json, or a .gguf file.

    The config of a known name is written under `folder`. A folder without weights gets random ones.
    `embedded` gives the path of the model that comes with us. Raises `UsageError`.
    """
    if name == EMBEDDED:
        try:
            return Model(name, checkpoint=str(embedded()))
        except (OSError, ValueError) as error:
            raise UsageError(f"--models {name}: {error}") from error
    if name in shapes():
        return Model(name, config=str(_write(name, folder)))
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return Model(path.stem, checkpoint=str(path.resolve()))
    if (path / "config.json").is_file():
        where = str(path.resolve())
        trained = any(path.glob("*.safetensors"))
        label = path.resolve().name
        return Model(label, checkpoint=where) if trained else Model(label, config=where)
    raise UsageError(
        f"--models: {name!r} is neither a known name nor a folder with config.json nor a .gguf "
        f"file; known names: {', '.join([EMBEDDED, *shapes()])}"
    )


def _write(name: str, folder: Path) -> Path:
    place = folder / "models" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(shapes()[name], indent=2) + "\n")
    return place
