"""How far a sweep is, kept in its folder so that it can go on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from client.errors import UsageError
from client.sweeping.cell import Cell, Status, cell_from_json
from client.sweeping.files import write_whole
from client.sweeping.peaks import Peaks, peaks_from_json

# Of the host; a table has one header, so versions may not change within a sweep.
# The instructions belong to the processor, which is compared, and older states do not say.
_MAY_CHANGE = ("platform", "avx512_bf16")


class Named(Protocol):
    """A setting to be tried."""

    @property
    def name(self) -> str:
        """Unique within its sweep."""


class Tried(Protocol):
    """What became of a setting."""

    @property
    def setting(self) -> Any:
        """The setting, `Named`."""

    @property
    def status(self) -> Status:
        """How its trial ended."""

    def as_json(self) -> dict[str, Any]:
        """As JSON values, which `Kind.read` takes back."""


C = TypeVar("C", bound=Tried)
N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class Kind(Generic[C]):
    """What a command keeps. `format` changes when a reader of older files would misread newer ones.

    `read` raises ValueError, TypeError or KeyError.
    """

    file: str
    format: str
    read: Callable[[dict[str, Any]], C]


SWEEP: Kind[Cell] = Kind("sweep.json", "loadstone-sweep-1", cell_from_json)


@dataclass(frozen=True)
class State(Generic[C]):
    """`settings` identify the sweep; `cells` are those that were tried, by name.

    `command`: the command line that started it. `started`: local time, ISO 8601. `host`: as the
    record of a run has it, and where the server is ours the version of JAX.
    """

    kind: Kind[C]
    command: str
    started: str
    settings: dict[str, Any]
    host: dict[str, Any]
    peaks: Peaks
    order: tuple[str, ...]
    cells: dict[str, C]

    @property
    def listed(self) -> list[C]:
        """The cells that were tried, in the order of the sweep."""
        return [self.cells[name] for name in self.order if name in self.cells]

    def missing(self, settings: Sequence[N], retry: bool) -> list[N]:
        """The settings still to be tried; with `retry`, also those without an answer."""
        return [each for each in settings if not self._done(each, retry)]

    def with_cell(self, cell: C) -> "State[C]":
        """The state after a trial."""
        return replace(self, cells=self.cells | {cell.setting.name: cell})

    def without(self, setting: Named) -> "State[C]":
        """The state with this setting to be tried again."""
        return replace(
            self, cells={name: cell for name, cell in self.cells.items() if name != setting.name}
        )

    def save(self, folder: Path) -> None:
        """Writes it, whole or not at all. OSError when it cannot be written."""
        text = json.dumps(self._as_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(folder / self.kind.file, text + "\n")

    def _done(self, setting: Named, retry: bool) -> bool:
        cell = self.cells.get(setting.name)
        return cell is not None and (cell.status.answers or not retry)

    def _as_json(self) -> dict[str, Any]:
        return {
            "format": self.kind.format,
            "command": self.command,
            "started": self.started,
            "settings": self.settings,
            "machine": self.host | self.peaks.as_json(),
            "remaining": len(self.order) - len(self.cells),
            "cells": [cell.as_json() for cell in self.listed],
        }


def load(kind: Kind[C], folder: Path, settings: Sequence[Named]) -> State[C] | None:
    """The state of the sweep in a folder, None without one.

    Raises `UsageError` when there is one that cannot be read.
    """
    path = folder / kind.file
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != kind.format:
            raise ValueError(f"format {kind.format} is read here, not {values['format']!r}")
        return _state(kind, values, settings)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is not the state of a sweep: {error!r}; give another --out"
        ) from error


def check_same(
    state: State[C], settings: dict[str, Any], host: dict[str, Any], folder: Path
) -> None:
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


def _state(kind: Kind[C], values: dict[str, Any], settings: Sequence[Named]) -> State[C]:
    cells = [kind.read(each) for each in values["cells"]]
    peaks = peaks_from_json(values["machine"])
    return State(
        kind=kind,
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
