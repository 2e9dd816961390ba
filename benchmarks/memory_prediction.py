"""What `python -m capacity fit` says of a setting on a chip with so much memory."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory_limit import GIB
from benchmarks.memory_setting import Setting

_NAME = "here"
_PARTS = ("weight_bytes", "cache_bytes", "temporary_bytes", "program_bytes")


@dataclass(frozen=True)
class Chip:
    """`kind` cpu or gpu, with `memory` bytes of which `reserved` are taken before an engine is."""

    kind: str
    memory: int
    reserved: int


@dataclass(frozen=True)
class Prediction:
    """careful: the largest batch with the usual share of memory kept free; batch: with none.

    slot_bytes: of a slot more.
    """

    careful: int
    batch: int
    slot_bytes: float


def predict(setting: Setting, chip: Chip, folder: Path) -> Prediction:
    """Asks the command as a user does, with the chip in a file in `folder`."""
    careful = _fit(setting, chip, folder)[0]["largest_batch"]
    most = _fit(setting, chip, folder, "--headroom", "0")[0]["largest_batch"]
    at = max(most, 1)
    here, more = planned_bytes(setting, chip, folder, at, 2 * at)
    return Prediction(careful, most, (more - here) / at)


def planned_bytes(setting: Setting, chip: Chip, folder: Path, *batches: int) -> list[float]:
    """What batches are to take, without what is reserved."""
    listed = ",".join(map(str, batches))
    cells = _fit(setting, chip, folder, "--batch-size", listed)
    return [sum(cell[part] for part in _PARTS) for cell in cells]


def _fit(setting: Setting, chip: Chip, folder: Path, *more: str) -> list[dict]:
    path = folder / f"chip-{chip.memory}.toml"
    path.write_text(
        f'[{_NAME}]\ntitle = "the device of the trials"\nkind = "{chip.kind}"\n'
        f"memory_gib = {chip.memory / GIB!r}\n"
        f"usable_memory_gib = {(chip.memory - chip.reserved) / GIB!r}\n"
        "bandwidth_gbps = 1  # of no matter here\n"
    )
    command = [
        sys.executable, "-m", "capacity", "fit", "--model", setting.model, "--slice", _NAME,
        "--chips", str(path), "--quantize", setting.weights, "--quantize-cache", setting.cache,
        "--cache-length", str(setting.length), "--json", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    # 2: nothing fits, which is an answer.
    if done.returncode not in (0, 2) or not done.stdout:
        raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr.strip()}")
    return json.loads(done.stdout)
