"""Runs the in-process benchmark on the scripted engine, and makes points with known times."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from process_rig import ProcessRig

from client.engines.cell import PointCell, TimedRun
from client.engines.entry import gather
from client.engines.measuring import Measuring
from client.engines.point import Point
from client.engines.presets import preset_values
from client.engines.showing import Showing
from client.engines.variant import Variant
from client.engines.view import View
from client.sweeping.cell import Status
from client.sweeping.peaks import GIVEN, Peaks

COMMAND = Path(__file__).with_name("offline_command.py")
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8}
PEAKS = Peaks(1e9, 1e12, GIVEN, GIVEN)
SIZES = {"layers": 2, "heads": 4, "head_dim": 8, "hidden": 32, "vocab": 256, "tied": 1}
FACTS = {
    "device": "cpu",
    "devices": 1,
    "attention": "any",
    "versions": {"torch": "9"},
    "parameters": 50_000,
    "sizes": SIZES,
    "weight_bytes": 200_000,
    "step_weight_bytes": 100_000,
    "cache_bytes_per_position": 512,
}


class Rig(ProcessRig):
    """Runs in a folder of their own, of a model that nobody reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "offline.json", "loadstone-offline-1")
        self.gate = folder / "gate"
        self.model = folder / "tiny"
        self.model.mkdir()
        (self.model / "config.json").write_text(json.dumps(CONFIG))

    def command(self, *arguments: str) -> list[str]:
        """The command line. Peaks are given, so that nothing is measured."""
        return [
            *(sys.executable, str(COMMAND), "--preset", "generate", "--models", str(self.model)),
            *("--engines", "loadstone", "--prompts", "3,2", "--new-tokens", "5", "--timed", "2"),
            *("--out", str(self.out), "--stop-seconds", "1", "--engine-options", str(self.gate)),
            *("--bandwidth-gbps", "10", "--peak-tflops", "1", *arguments),
        ]


def point_cell(
    variant: Variant,
    batch: int,
    runs: Sequence[tuple[float, float | None]] = (),
    *,
    context: int = 9,
    model: str = "m",
    turn: int = 1,
    status: Status = Status.OK,
    reason: str = "",
    **more: Any,
) -> PointCell:
    """A point with runs of known (seconds, seconds to the first token)."""
    measured: dict[str, Any] = {}
    if status is Status.OK:
        measured = {
            "runs": tuple(TimedRun(*run) for run in runs),
            "facts": FACTS,
            "cold": {"ready": 5.0, "imports": 1.0, "load": 2.0, "compile": 1.5, "first_run": 0.5},
            "memory": {"peak_bytes": 3 * 2**30, "of": "process, resident", "while_timed": True},
        }
    return PointCell(
        setting=Point(model, variant, batch, context, turn),
        status=status,
        reason=reason,
        date="2026-01-31T12:00:00",
        seconds=1.0,
        command=("x",),
        **{**measured, **more},
    )


def measuring(preset: str, **changes: Any) -> Measuring:
    """A preset's page with some fields of its own."""
    return Measuring(**{**preset_values(preset, "page"), "models": ("m",), **changes})


def view_of(
    cells: Sequence[PointCell], what: Measuring, showing: Showing | None = None, **more: Any
) -> View:
    """What tables are made from."""
    values = {"models": ("m",), "trained": frozenset(), "peaks": PEAKS, **more}
    return View(entries=gather(cells), what=what, showing=showing or Showing(), **values)


def rows_of(lines: Sequence[str], start: str) -> list[list[str]]:
    """Cells of the table rows that begin with `start`, in order."""
    found = [line for line in lines if line.startswith(f"| {start} |")]
    return [[value.strip() for value in line.strip("|").split(" | ")] for line in found]
