"""The chips that records name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from capacity.hardware.chip import Chip, Figure
from capacity.hardware.host import BF16_PEAK, INT8_PEAK
from capacity.hardware.slice import Slice, find_slice
from client.errors import UsageError

_SOURCE = "measured by the client on the host of the record, or given to it"
_CPU = "cpu"


class VirtualDevices(Exception):
    """Several virtual devices on one CPU, which are not modelled."""


@dataclass(frozen=True)
class Places:
    """`chips` by name; `host` measures this host's CPU when nothing else knows it."""

    chips: Mapping[str, Chip]
    host: Callable[[], Chip]

    def named(self, name: str) -> Slice:
        """A slice as users write it."""
        if name.lower() == _CPU and _CPU not in self.chips:
            return Slice(self.host(), 1)
        return find_slice(name, self.chips)

    def devices(self, kind: str, count: int, cpu: Chip | None = None) -> Slice:
        """Devices by the name that the runtime gives them. `cpu`: the record's own host.

        Raises `VirtualDevices`, and `UsageError` for a kind that is not known.
        """
        if kind.lower() == _CPU:
            if count > 1:
                raise VirtualDevices
            return Slice(self.chips.get(_CPU) or cpu or self.host(), 1)
        for chip in self.chips.values():
            if kind.lower() in (name.lower() for name in (chip.name, *chip.aliases)):
                if chip.kind == "tpu":
                    return find_slice(f"{chip.name}-{count * chip.cores_in_name}", self.chips)
                return Slice(chip, count)
        raise UsageError(
            f"device {kind!r} is no known chip; add it with --chips FILE, with that name among its "
            "aliases"
        )


def host_of(machine: Mapping[str, Any]) -> Chip:
    """The host of a sweep or of points in process, with the peaks that it measured or was given."""
    figures = {
        "memory_gib": Figure(1.0, "not known", "", False),
        "bandwidth_gbps": Figure(machine["bandwidth_gbps"], _SOURCE, ""),
        "fp32_tops": Figure(machine["peak_tflops"], _SOURCE, ""),
        "int8_tops": Figure(INT8_PEAK * machine["peak_tflops"], _SOURCE, "", False),
    }
    if machine.get("avx512_bf16"):  # records before November 2026 do not say
        figures["bf16_tops"] = Figure(BF16_PEAK * machine["peak_tflops"], _SOURCE, "", False)
    name, cores = str(machine.get("cpu", "CPU")), machine.get("cores")
    return Chip(_CPU, f"{name}, {cores} cores" if cores else name, _CPU, figures)


def with_all_peaks(chips: Iterable[Chip]) -> dict[str, Chip]:
    """CPUs by their titles, each with the largest figures that any of its records has.

    Each record measured them when it began, and a busy minute lowers a peak by a quarter:
    efficiencies relative to different peaks cannot be told together.
    """
    found: dict[str, Chip] = {}
    for chip in chips:
        if chip.kind != _CPU:
            continue
        known = found.setdefault(chip.title, chip)
        figures = dict(known.figures)
        for name, figure in chip.figures.items():
            figures[name] = max(figures.get(name, figure), figure, key=lambda each: each.value)
        found[chip.title] = replace(known, figures=figures)
    return found
