"""How far a sweep is, kept in its folder so that it can go on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.sweeping.cell import Cell, cell_from_json
from client.sweeping.files import write_whole
from client.sweeping.peaks import Peaks, peaks_from_json
from client.sweeping.setting import Setting

FILE = "sweep.json"
# Changes when a reader of older files would misread a newer one.
FORMAT = "loadstone-sweep-1"
# Of the host; a table has one header, so versions may not change within a sweep.
_MAY_CHANGE = ("platform",)


@dataclass(frozen=True)
class State:
    """`sweep.json`. `settings` identify the sweep; `cells` are those that were tried, by name.

    `command`: the command line that started it. `started`: local time, ISO 8601. `host`: as the
    record of a run has it, and where the server is ours the version of JAX.
    """

    command: str
    started: str
    settings: dict[str, Any]
    host: dict[str, Any]
    peaks: Peaks
    order: tuple[str, ...]
    cells: dict[str, Cell]

    @property
    def listed(self) -> list[Cell]:
        """The cells that were tried, in the order of the sweep."""
        return [self.cells[name] for name in self.order if name in self.cells]

    def missing(self, settings: Sequence[Setting], retry: bool) -> list[Setting]:
        """The settings still to be tried; with `retry`, also those without an answer."""
        return [each for each in settings if not self._done(each, retry)]

    def with_cell(self, cell: Cell) -> "State":
        """The state after a trial."""
        return replace(self, cells=self.cells | {cell.setting.name: cell})

    def without(self, setting: Setting) -> "State":
        """The state with this setting to be tried again."""
        return replace(
            self, cells={name: cell for name, cell in self.cells.items() if name != setting.name}
        )

    def save(self, folder: Path) -> None:
        """Writes it, whole or not at all. OSError when it cannot be written."""
        text = json.dumps(self._as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(folder / FILE, text + "\n")

    def _done(self, setting: Setting, retry: bool) -> bool:
        cell = self.cells.get(setting.name)
        return cell is not None and (cell.status.answers or not retry)

    def _as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "command": self.command,
            "started": self.started,
            "settings": self.settings,
            "machine": self.host | self.peaks.as_json(),
            "remaining": len(self.order) - len(self.cells),
            "cells": [cell.as_json() for cell in self.listed],
        }


def load(folder: Path, settings: Sequence[Setting]) -> State | None:
    """The state of the sweep in a folder, None without one.

    Raises `UsageError` when there is one that cannot be read.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {FORMAT} is read here, not {values['format']!r}")
        return _state(values, settings)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is not the state of a sweep: {error!r}; give another --out"
        ) from error


def check_same(state: State, settings: dict[str, Any], host: dict[str, Any], folder: Path) -> None:
    """Raises `UsageError`, naming what differs, when settings, processor or versions are others."""
    here = [(name, state.settings.get(name), value) for name, value in settings.items()]
    names = [name for name in {**state.host, **host} if name not in _MAY_CHANGE]
    here += [(name, state.host.get(name), host.get(name)) for name in names]
    differ = [
        f"{name} was {json.dumps(before)} and is now {json.dumps(now)}"
        for name, before, now in here
        if before != now
    ]
    if differ:
        raise UsageError(
            f"{folder} holds another sweep: {'; '.join(differ)}; give another --out, or the same "
            "settings"
        )


def _state(values: dict[str, Any], settings: Sequence[Setting]) -> State:
    cells = [cell_from_json(each) for each in values["cells"]]
    peaks = peaks_from_json(values["machine"])
    return State(
        command=values["command"],
        started=values["started"],
        settings=values["settings"],
        host={
            name: value for name, value in values["machine"].items() if name not in peaks.as_json()
        },
        peaks=peaks,
        order=tuple(setting.name for setting in settings),
        cells={cell.setting.name: cell for cell in cells},
    )
