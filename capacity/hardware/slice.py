"""Several chips that serve one model together."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from capacity.hardware.chip import Chip
from capacity.hardware.chips import find_chip
from client.errors import UsageError

_COUNTED = re.compile(r"(?P<chip>.+?)\s*[x*]\s*(?P<count>\d+)$")
_TPU = re.compile(r"(?P<chip>.+)-(?P<shape>\d+(x\d+)*)$")


@dataclass(frozen=True)
class Slice:
    """`count` chips of one kind. `topology`: a TPU's, such as 2x4."""

    chip: Chip
    count: int
    topology: str = ""

    @property
    def name(self) -> str:
        """As users write it: v5e-8, h100x8, a5000."""
        if self.chip.kind == "tpu":
            return f"{self.chip.name}-{self.count * self.chip.cores_in_name}"
        return self.chip.name if self.count == 1 else f"{self.chip.name}x{self.count}"

    @property
    def link(self) -> float | None:
        """Bytes/s that a chip can send to the others of the slice, in one direction.

        GPUs beyond a group joined by links share the host's bus. None for a single chip.
        """
        if self.count == 1:
            return None
        joined = self.chip.kind != "gpu" or self.count <= max(self.chip.groups)
        both = self.chip.need("link_gbps" if joined else "host_link_gbps")
        return both * 1e9 / 2

    @property
    def latency(self) -> float:
        """Seconds that the smallest collective takes."""
        return (self.chip.get("link_latency_us") or 0.0) * 1e-6 if self.count > 1 else 0.0

    @property
    def price_per_hour(self) -> float | None:
        """Dollars for all chips; None without a price."""
        price = self.chip.get("price_per_hour")
        return None if price is None else price * self.count

    @property
    def watts(self) -> float | None:
        """Of all chips, from the datasheet; None where there is none."""
        watts = self.chip.get("watts")
        return None if watts is None else watts * self.count


def find_slice(text: str, chips: Mapping[str, Chip]) -> Slice:
    """A slice by its name: v5e-8, v5e-2x4, v5p-8, h100x8, h100 x 8, rtx4090, cpu.

    Raises `UsageError` naming the slices of this chip that exist.
    """
    name = text.strip()
    exact = {alias.lower() for chip in chips.values() for alias in (chip.name, *chip.aliases)}
    counted = _COUNTED.match(name)
    shaped = _TPU.match(name)
    if name.lower() in exact:
        chip = find_chip(name, chips)
        return _of_tpu(chip, None, name) if chip.kind == "tpu" else Slice(chip, 1)
    if shaped and shaped["chip"].lower() in exact:
        chip = find_chip(shaped["chip"], chips)
        if chip.kind == "tpu":
            return _of_tpu(chip, shaped["shape"], name)
    if counted:
        chip, count = find_chip(counted["chip"], chips), int(counted["count"])
        if chip.kind == "tpu":
            return _of_tpu(chip, str(count * chip.cores_in_name), name)
        return _of_gpus(chip, count, name)
    chip = find_chip(shaped["chip"] if shaped else name, chips)
    raise UsageError(f"slice {name!r}: {chip.title} comes as {_existing(chip)}")


def slices_of(chip: Chip) -> list[Slice]:
    """Every slice of a chip that exists."""
    if chip.kind == "tpu":
        return [Slice(chip, count, topology) for count, topology in chip.shapes.items()]
    return [Slice(chip, count) for count in chip.groups]


def _of_tpu(chip: Chip, shape: str | None, name: str) -> Slice:
    if shape is None:
        smallest = min(chip.shapes)
        if smallest == 1:
            return Slice(chip, 1, chip.shapes[1])
        raise UsageError(f"slice {name!r}: {chip.title} comes as {_existing(chip)}")
    if "x" in shape:
        count = math.prod(int(side) for side in shape.split("x"))
        if chip.shapes.get(count) == shape:
            return Slice(chip, count, shape)
    elif int(shape) % chip.cores_in_name == 0:
        count = int(shape) // chip.cores_in_name
        if count in chip.shapes:
            return Slice(chip, count, chip.shapes[count])
    raise UsageError(f"slice {name!r} does not exist; {chip.title} comes as {_existing(chip)}")


def _of_gpus(chip: Chip, count: int, name: str) -> Slice:
    if count < 1:
        raise UsageError(f"slice {name!r}: 1 chip or more")
    if count > max(chip.groups) and "host_link_gbps" not in chip.figures:
        raise UsageError(
            f"slice {name!r}: {chip.title} is joined in groups of "
            f"{', '.join(map(str, chip.groups))}, and nothing is known of its host's bus"
        )
    return Slice(chip, count)


def _existing(chip: Chip) -> str:
    return ", ".join(
        f"{each.name} ({each.topology})" if each.topology else each.name for each in slices_of(chip)
    )
