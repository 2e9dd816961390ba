"""What the compiler said."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from capacity.compiled.traffic import Collective, Copy, Traffic

GIB = 2**30


@dataclass(frozen=True)
class Program:
    """A program that the compiler took. Bytes per device: `arguments` with parameters, cache and
    state; `aliased` of its results, which take an argument's place; `code` on the device.

    flops: of one run, as XLA counts. xla_bytes: XLA's "bytes accessed". seconds: of compiling.
    donated: arrays of the cache and state that are aliased, of `donatable`.
    """

    name: str
    arguments: int
    results: int
    aliased: int
    temporaries: int
    code: int
    flops: float
    xla_bytes: float
    traffic: Traffic
    donated: int
    donatable: int
    seconds: float = 0.0

    @property
    def memory(self) -> int:
        """Bytes of a device's memory while it runs."""
        return self.arguments + self.results - self.aliased + self.temporaries + self.code

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`."""
        moved = dict(values["traffic"])
        moved["collectives"] = {k: Collective(**v) for k, v in moved["collectives"].items()}
        moved["copies"] = tuple(Copy(**each) for each in moved["copies"])
        return cls(**{**values, "traffic": Traffic(**moved)})


@dataclass(frozen=True)
class Refusal:
    """A program that the compiler would not take. `needed` and `available` in bytes, None where its
    message does not say."""

    name: str
    message: str
    needed: int | None = None
    available: int | None = None


@dataclass(frozen=True)
class Answer:
    """What became of an ask. planned: bytes per device as the engine counts them before anything is
    compiled: weights, cache, temporaries. limit: bytes that a device has. cache_length: what the
    model's own bounds leave of it. every: the programs that an engine compiles at start-up.
    versions: of what compiled.
    """

    programs: tuple[Program, ...]
    refusals: tuple[Refusal, ...]
    planned: Mapping[str, int]
    device_kind: str
    limit: int
    cache_length: int
    every: tuple[str, ...]
    notices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether every program was taken, and there is room for the code of all."""
        return not self.refusals and self.memory <= self.limit

    @property
    def memory(self) -> int:
        """Bytes of a device while the engine serves: what every program has in common, the most
        that one needs beside it, and the code of all; or what a refusal says."""
        refused = max((one.needed or 0 for one in self.refusals), default=0)
        beside = [one.memory - one.code - one.arguments for one in self.programs]
        return max(refused, self.arguments + max(beside, default=0) + self.code)

    @property
    def code(self) -> int:
        """Bytes of the code of every program; one that was not compiled counts as the largest of
        its kind that was."""
        known = {one.name: one.code for one in self.programs}
        largest: dict[str, int] = {}
        for name, code in known.items():
            kind = name.split()[0]
            largest[kind] = max(code, largest.get(kind, 0))
        return sum(known.get(name, largest.get(name.split()[0], 0)) for name in self.every)

    @property
    def arguments(self) -> int:
        """Bytes that stay: parameters, cache and state."""
        return max((one.arguments for one in self.programs), default=0)

    @property
    def temporaries(self) -> int:
        """Bytes that one program needs beside them, and the code of all."""
        return self.memory - self.arguments

    @property
    def decode(self) -> Program | None:
        """A step that reads the whole cache."""
        steps = [one for one in self.programs if one.name.startswith("decode")]
        return max(steps, key=lambda one: int(one.name.split()[1]), default=None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse."""
        return cls(
            programs=tuple(Program.from_dict(each) for each in values["programs"]),
            refusals=tuple(Refusal(**each) for each in values["refusals"]),
            planned=values["planned"],
            device_kind=values["device_kind"],
            limit=values["limit"],
            cache_length=values["cache_length"],
            every=tuple(values["every"]),
            notices=tuple(values["notices"]),
            versions=values["versions"],
        )
