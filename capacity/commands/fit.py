"""`python -m capacity fit`: bytes per chip for each setting, and the largest batch that fits."""

import argparse
import itertools
import json
from pathlib import Path

from capacity.commands.options import (
    add_chips,
    add_model,
    add_page,
    read_chips,
    read_slice,
    setting_of,
    whole_numbers,
    words,
)
from capacity.hardware.chip import GIB
from capacity.memory.need import HEADROOM, MemoryNeed, largest_batch, memory_need
from capacity.memory.plot import write_plot
from capacity.pages.fitted import write_fitted
from capacity.tables.markdown import table
from capacity.work.setting import Setting
from client.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    add_model(parser, several=True)
    parser.add_argument(
        "--batch-size", help="slots, or several with commas; default: the largest that fits"
    )
    parser.add_argument(
        "--headroom", type=float, default=HEADROOM, metavar="SHARE",
        help=f"of a chip's memory that stays free (default: {HEADROOM})",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="the grid as a page")
    add_page(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints the grid. UsageError when not one slot of any setting fits."""
    if not 0 <= given.headroom < 1:
        raise UsageError(f"--headroom: a share from 0 up to 1; got {given.headroom}")
    cells = _grid(given)
    lines = _table(cells, given.headroom)
    if given.json:
        print(json.dumps([_as_json(*cell) for cell in cells], indent=1))
    else:
        print("\n".join(lines))
    if given.plot is not None:
        write_plot(cells, given.plot)
    if given.html is not None:
        write_fitted(given.html, cells, lines)
    if not any(most for _, _, most in cells):
        raise UsageError(_nowhere(cells))
    return 0


def _grid(given: argparse.Namespace) -> list[tuple[Setting, MemoryNeed, int]]:
    chips = read_chips(given)
    slices = [read_slice(name, chips) for name in words(given.slice)]
    lengths = whole_numbers("--cache-length", given.cache_length)
    batches = (
        whole_numbers("--batch-size", given.batch_size) if given.batch_size is not None else [None]
    )
    cells = []
    for where, weights, sharding, length, slots in itertools.product(
        slices, words(given.quantize), words(given.sharding), lengths, batches
    ):
        least = where.count if sharding == "batch" else 1
        setting = setting_of(
            given, where, weights=weights, sharding=sharding, cache_length=length,
            slots=slots or least,
        )  # fmt: skip
        most = largest_batch(setting, given.headroom)
        if slots is None and most:
            setting = setting_of(
                given, where, weights=weights, sharding=sharding, cache_length=length, slots=most
            )
        cells.append((setting, memory_need(setting, given.headroom), most))
    return cells


def _table(cells: list[tuple[Setting, MemoryNeed, int]], headroom: float) -> list[str]:
    headers = [
        "Slice", "Weights", "Cache", "Sharding", "Cache length", "Batch", "Weights, GiB",
        "Cache, GiB", "Temporaries, GiB", "Programs, GiB", "Sum, GiB", "Of GiB", "Fits",
        "Largest batch",
    ]  # fmt: skip
    rows = []
    for setting, need, most in cells:
        sizes = (need.weights, need.cache, need.temporaries, need.programs, need.total, need.limit)
        rows.append([
            setting.slice.name, setting.weights, setting.cache, setting.sharding,
            f"{setting.kept_positions:,}", f"{setting.slots:,}",
            *(f"{size / GIB:,.2f}" for size in sizes), "yes" if need.fits else "no", f"{most:,}",
        ])  # fmt: skip
    name = cells[0][0].model.name
    return [
        f"{name}: bytes per chip ({headroom:.0%} of its memory kept free)",
        "",
        *table(headers, rows),
    ]


def _as_json(setting: Setting, need: MemoryNeed, most: int) -> dict[str, object]:
    return {
        "model": setting.model.name,
        "slice": setting.slice.name,
        "weights": setting.weights,
        "cache": setting.cache,
        "sharding": setting.sharding,
        "cache_length": setting.kept_positions,
        "batch_size": setting.slots,
        "weight_bytes": need.weights,
        "cache_bytes": need.cache,
        "temporary_bytes": need.temporaries,
        "program_bytes": need.programs,
        "limit_bytes": need.limit,
        "fits": need.fits,
        "largest_batch": most,
    }


def _nowhere(cells: list[tuple[Setting, MemoryNeed, int]]) -> str:
    setting, need, _ = min(cells, key=lambda cell: cell[1].total / cell[1].limit)
    return (
        f"{setting.model.name} does not fit any of these with a single slot; nearest is "
        f"{setting.weights} on {setting.slice.name}, {need} of {need.limit / GIB:.2f} GiB: "
        "take more chips (--slice), fewer bits (--quantize int8), or --sharding model"
    )
