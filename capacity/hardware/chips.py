"""The chips that are known, and those a user adds or corrects."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from capacity.hardware.chip import CHIP_KEYS, FIGURES, Chip, Figure
from capacity.names import pick
from client.errors import UsageError

_FIGURE_KEYS = ("value", "source", "confirmed", "date")
_USER_DATE = "given by the user"


def known_chips(overrides: Path | None = None) -> dict[str, Chip]:
    """Every chip by name; `overrides` is a TOML file of the same form that adds or corrects.

    Raises `UsageError` naming the file and the key that is wrong.
    """
    text = (resources.files("capacity.hardware") / "chips.toml").read_text()
    chips = _read(tomllib.loads(text), {}, "chips.toml")
    if overrides is None:
        return chips
    try:
        given = tomllib.loads(overrides.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--chips: cannot read {overrides}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--chips: {overrides} is not TOML: {error}") from error
    return _read(given, chips, str(overrides))


def find_chip(name: str, chips: Mapping[str, Chip]) -> Chip:
    """A chip by its name or another that it goes by. UsageError names the nearest."""
    others = {alias.lower(): chip for chip in chips.values() for alias in chip.aliases}
    return others.get(name.lower()) or pick("chip", name.lower(), chips)


def _read(values: Mapping[str, Any], chips: Mapping[str, Chip], where: str) -> dict[str, Chip]:
    sources = values.get("sources", {})
    found = dict(chips)
    for name, entry in values.items():
        if name == "sources":
            continue
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: {name} is no chip; a chip is a table [{name}]")
        try:
            found[name] = _chip(name, entry, found.get(name), sources)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError(f"{where}: [{name}]: {error}") from error
    return found


def _chip(
    name: str, entry: Mapping[str, Any], before: Chip | None, sources: Mapping[str, Any]
) -> Chip:
    unknown = sorted(set(entry) - {*FIGURES, *CHIP_KEYS})
    if unknown:
        raise UsageError(f"unknown {unknown}; known: {', '.join((*CHIP_KEYS, *FIGURES))}")
    figures = {key: _figure(key, entry[key], sources) for key in FIGURES if key in entry}
    rest = {key: _plain(key, entry[key]) for key in CHIP_KEYS if key in entry}
    if before is not None:
        return replace(before, figures={**before.figures, **figures}, **rest)
    return Chip(**{"name": name, "title": name, "kind": "gpu", "figures": figures, **rest})


def _plain(key: str, value: Any) -> Any:
    if key == "shapes":
        return {int(chips): str(topology) for chips, topology in value.items()}
    return tuple(value) if key in ("aliases", "groups") else value


def _figure(key: str, entry: Any, sources: Mapping[str, Any]) -> Figure:
    if isinstance(entry, int | float) and not isinstance(entry, bool):
        return Figure(float(entry), _USER_DATE, "")
    unknown = sorted(set(entry) - set(_FIGURE_KEYS))
    if unknown or "value" not in entry:
        raise UsageError(f"{key} is a number or {{ value, source, date, confirmed }}; got {entry}")
    source = sources.get(entry.get("source"), {})
    return Figure(
        value=float(entry["value"]),
        source=source.get("title", entry.get("source", _USER_DATE)),
        date=source.get("date", entry.get("date", "")),
        confirmed=entry.get("confirmed", True),
    )
