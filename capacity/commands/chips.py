"""`python -m capacity chips`: known chips and slices, each number with its source."""

import argparse
from datetime import date

from capacity.commands.options import add_chips, read_chips
from capacity.hardware.chip import FIGURES, Chip
from capacity.hardware.chips import find_chip
from capacity.hardware.host import measure_host
from capacity.hardware.slice import slices_of
from capacity.tables.markdown import number, table
from client.errors import UsageError

_COLUMNS = (
    "memory_gib", "bandwidth_gbps", "bf16_tops", "int8_tops", "fp8_tops", "fp32_tops", "link_gbps",
    "watts", "price_per_hour",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("chip", nargs="?", help="one chip, with the source of each figure")
    parser.add_argument(
        "--measure", action="store_true",
        help="measure this host's CPU and print it as a chips file; on an idle machine",
    )  # fmt: skip
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints a table, one chip's figures, or a chips file."""
    if given.measure:
        print("\n".join(_as_toml(_measured())))
        return 0
    chips = read_chips(given)
    if given.chip is not None:
        print("\n".join(_one(find_chip(given.chip, chips))))
        return 0
    rows = [
        [chip.name, chip.title, *(_cell(chip, name) for name in _COLUMNS), _slices(chip)]
        for chip in chips.values()
    ]
    print("\n".join(table(["Chip", "", *_COLUMNS, "slices"], rows)))
    print("\n? is not confirmed: one source, or an estimate. `chips NAME` lists the sources.")
    return 0


def _measured() -> Chip:
    try:
        return measure_host(date.today().isoformat())
    except OSError as error:
        raise UsageError(f"cannot measure this host: {error}") from error


def _cell(chip: Chip, name: str) -> str:
    figure = chip.figures.get(name)
    if figure is None:
        return "-"
    return f"{figure.value:,g}" + ("" if figure.confirmed else " ?")


def _slices(chip: Chip) -> str:
    return ", ".join(each.name for each in slices_of(chip))


def _one(chip: Chip) -> list[str]:
    rows = [
        [name, _cell(chip, name), chip.figures[name].source, chip.figures[name].date]
        for name in FIGURES
        if name in chip.figures
    ]
    shapes = ", ".join(
        f"{each.name} ({each.topology})" if each.topology else each.name for each in slices_of(chip)
    )
    return [f"{chip.title}: {shapes}", "", *table(["Figure", "Value", "Source", "Read"], rows)]


def _as_toml(chip: Chip) -> list[str]:
    lines = ["[cpu]", f'title = "{chip.title}"', 'kind = "cpu"']
    for name, figure in chip.figures.items():
        lines.append(
            f"{name} = {{ value = {number(figure.value, 4).replace(',', '')}, "
            f'source = "{figure.source}", date = "{figure.date}" }}'
        )
    return lines
