"""One kind of chip, in numbers that each say where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from client.errors import UsageError

GIB = 2**30
# Arithmetic by the type of its inputs; float16 counts as bf16.
PEAKS = ("bf16", "int8", "fp8", "fp32")
FIGURES = (
    "memory_gib",
    "usable_memory_gib",
    "bandwidth_gbps",
    *(f"{name}_tops" for name in PEAKS),
    "link_gbps",
    "link_latency_us",
    "host_link_gbps",
    "watts",
    "price_per_hour",
)
KINDS = ("tpu", "gpu", "cpu")


@dataclass(frozen=True)
class Figure:
    """A number with its source. `confirmed` False: seen in one place only, or estimated."""

    value: float
    source: str
    date: str
    confirmed: bool = True


@dataclass(frozen=True)
class Chip:
    """Peaks are dense, per chip. Memory in GiB, rates in 1e9 bytes or 1e12 operations a second.

    link_gbps: to other chips of its group, all links and both directions together. host_link_gbps:
    the same over the host's bus, for GPUs beyond a group. price_per_hour: US dollars, on demand.
    shapes: slices of a TPU that exist, chips -> topology. groups: GPUs that are joined by links.
    cores_in_name: what the number in a slice's name counts for each chip (v5p-8 has four chips).
    """

    name: str
    title: str
    kind: str
    figures: Mapping[str, Figure]
    aliases: tuple[str, ...] = ()
    shapes: Mapping[int, str] = field(default_factory=dict)
    groups: tuple[int, ...] = (1,)
    cores_in_name: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                f"chip {self.name}: kind is {self.kind!r}; allowed: {', '.join(KINDS)}"
            )
        unknown = sorted(set(self.figures) - set(FIGURES))
        if unknown:
            raise UsageError(f"chip {self.name}: unknown {unknown}; known: {', '.join(FIGURES)}")
        for name, figure in self.figures.items():
            if not figure.value > 0:
                raise UsageError(f"chip {self.name}: {name} is {figure.value}; a number above 0")
        for name in ("memory_gib", "bandwidth_gbps"):
            self.need(name)

    def need(self, name: str) -> float:
        """A figure's value. UsageError says how to supply one that is not known."""
        if name not in self.figures:
            raise UsageError(
                f"chip {self.name} has no {name}; give it with --chips FILE:\n"
                f"  [{self.name}]\n  {name} = {{ value = .., source = '..' }}"
            )
        return self.figures[name].value

    def get(self, name: str) -> float | None:
        """A figure's value, None when it is not known."""
        return self.figures[name].value if name in self.figures else None

    @property
    def memory(self) -> float:
        """Bytes that programs can have."""
        usable = self.get("usable_memory_gib")
        return (self.need("memory_gib") if usable is None else usable) * GIB

    @property
    def bandwidth(self) -> float:
        """Bytes/s of its memory."""
        return self.need("bandwidth_gbps") * 1e9

    def peak(self, arithmetic: str) -> float:
        """Operations/s; the next wider type where a chip does not have this one."""
        for name in (arithmetic, "bf16", "fp32"):
            if f"{name}_tops" in self.figures:
                return self.figures[f"{name}_tops"].value * 1e12
        return self.need("bf16_tops")


CHIP_KEYS = tuple(each.name for each in fields(Chip) if each.name not in ("name", "figures"))
