"""Models known by name."""

import tomllib
from functools import cache
from importlib import resources

from server.models.families import FAMILIES
from server.models.spec import ModelSpec


@cache
def catalogue() -> dict[str, ModelSpec]:
    """Every named model."""
    text = (resources.files("server.models") / "catalogue.toml").read_text()
    return {
        name: FAMILIES[values.pop("family")].spec({"name": name, **values})
        for name, values in tomllib.loads(text).items()
    }
