"""What one run of a compiled program moves: bytes of main memory, collectives, whole copies.

XLA's own "bytes accessed" counts what is staged in on-chip memory twice more and an update in place
as the whole buffer; here only main memory counts, a slice as its size and an update as its own.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from capacity.compiled.hlo import Computation, Instruction, Module, Shape

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Nothing moves: names for what is there, or the end of what was counted at its start.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency", "iota", "rng-get-and-update-state",
}  # fmt: skip
_NO_WORK = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding")
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = {"scatter": 2, "dynamic-update-slice": 1}
_VIEWS = ("bitcast", "reshape", "copy", "transpose", "convert")


@dataclass(frozen=True)
class Collective:
    """`count` in one run; `bytes`: what a chip gives to them, or for all-gather what it gets."""

    count: int
    bytes: int


@dataclass(frozen=True)
class Copy:
    """An array that is copied whole from one place in main memory to another."""

    what: str
    bytes: int


@dataclass(frozen=True)
class Traffic:
    """Per chip and run. read, written: bytes of main memory. cycles: the TPU compiler's estimate
    of all it put a number on, 0 with other compilers. scatters: updates at places known on the
    device only; the compiler gives no estimate for them. unsure: loops whose number of rounds the
    text does not tell, counted once.
    """

    read: int
    written: int
    collectives: Mapping[str, Collective]
    copies: tuple[Copy, ...]
    scatters: int
    cycles: int
    unsure: int = 0

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written


def traffic(module: Module, whole: int = 1 << 20) -> Traffic:
    """Adds up the program, loops as often as they run, of branches the cheapest (all greedy).

    `whole`: copies of fewer bytes are not listed.
    """
    tally = _Tally(module, whole)
    tally.walk(module.entry, 1)
    return tally.total()


@dataclass
class _Tally:
    module: Module
    whole: int
    read: int = 0
    written: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    copies: list[Copy] = field(default_factory=list)
    scatters: int = 0
    cycles: int = 0
    unsure: int = 0

    def total(self) -> Traffic:
        kinds = {kind: Collective(self.counts[kind], self.given[kind]) for kind in self.counts}
        return Traffic(
            self.read, self.written, kinds, tuple(self.copies), self.scatters, self.cycles,
            self.unsure,
        )  # fmt: skip

    def walk(self, computation: Computation, times: int) -> None:
        for each in computation.instructions:
            self._count(computation, each, times)

    def _count(self, computation: Computation, each: Instruction, times: int) -> None:
        self.cycles += times * (each.cycles or 0)
        if each.opcode == "while":
            self._loop(computation, each, times)
        elif each.opcode == "conditional":
            self._cheapest(each, times)
        elif each.opcode in ("call", "async-start"):
            self.walk(self._called(each), times)
        elif (kind := _collective(each.opcode)) is not None:
            self._collective(computation, each, kind, times)
        elif not (each.opcode in _FREE or each.opcode.endswith("-done") or _no_work(each)):
            self._moved(computation, each, times)

    def _moved(self, computation: Computation, each: Instruction, times: int) -> None:
        inner = self._called(each) if each.opcode == "fusion" else None
        read = sum(_read(computation, each, inner, n) for n in range(len(each.operands)))
        written = sum(_written(computation, each, inner))
        self.read += times * read
        self.written += times * written
        if inner is not None:
            for one in inner.instructions:
                self.scatters += times * (one.opcode == "scatter")
                if (kind := _collective(one.opcode)) is not None:
                    self._collective(inner, one, kind, times)
        self.scatters += times * (each.opcode == "scatter")
        if _is_copy(each, inner) and read == written >= self.whole:
            self.copies += [Copy(_what(each), written)] * times

    def _collective(
        self, computation: Computation, each: Instruction, kind: str, times: int
    ) -> None:
        shapes = each.shapes if kind == "all-gather" else _operand_shapes(computation, each)
        if kind == "all-gather" and each.opcode.endswith("-start"):
            shapes = each.shapes[len(each.operands) :]
        size = sum(shape.bytes for shape in shapes)
        self.counts[kind] += times
        self.given[kind] += times * size
        self.read += times * sum(s.bytes for s in _operand_shapes(computation, each) if _far(s))
        self.written += times * sum(shape.bytes for shape in shapes if _far(shape))

    def _loop(self, computation: Computation, each: Instruction, times: int) -> None:
        body = self.module.computations[each.attribute("body") or ""]
        condition = self.module.computations[each.attribute("condition") or ""]
        rounds = _rounds(each, condition, body)
        self.unsure += rounds is None
        self.walk(body, times * (rounds or 1))

    def _cheapest(self, each: Instruction, times: int) -> None:
        tallies = []
        for name in each.branches:
            one = _Tally(self.module, self.whole)
            one.walk(self.module.computations[name], times)
            tallies.append(one)
        if not tallies:
            return
        best = min(tallies, key=lambda one: (one.cycles, one.read + one.written))
        self.read += best.read
        self.written += best.written
        self.counts += best.counts
        self.given += best.given
        self.copies += best.copies
        self.scatters += best.scatters
        self.cycles += best.cycles
        self.unsure += best.unsure

    def _called(self, each: Instruction) -> Computation:
        name = each.attribute("calls") or each.attribute("to_apply") or ""
        return self.module.computations[name]


def _read(
    computation: Computation, each: Instruction, inner: Computation | None, number: int
) -> int:
    """Bytes of main memory that an operand costs."""
    shapes = _shapes_of(computation, each.operands[number])
    size = sum(shape.bytes for shape in shapes if _far(shape))
    if size == 0:
        return 0
    if each.opcode == "custom-call" and number in each.in_place.values():
        return 0
    if inner is not None:
        parameter = inner.parameter(number)
        return min(size, _used(inner, parameter)) if parameter is not None else size
    if each.opcode in _SLICES and number == 0:
        return min(size, sum(shape.bytes for shape in each.shapes))
    if each.opcode in ("slice-start", "copy-start"):
        return min(size, _destination(each).bytes)
    return 0 if each.opcode in _UPDATES and number == 0 else size


def _used(inner: Computation, value: Instruction) -> int:
    """Bytes that a fusion reads of one of its parameters."""
    used = 0
    whole = sum(shape.bytes for shape in value.shapes)
    for user in inner.users[value.name]:
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            used += sum(shape.bytes for shape in user.shapes)
        elif user.opcode in _UPDATES and first:
            continue
        elif user.opcode in _VIEWS or user.in_place:
            used += min(whole, _used(inner, user)) if not user.root else whole
        else:
            return whole
    return used


def _written(
    computation: Computation, each: Instruction, inner: Computation | None
) -> Iterator[int]:
    """Bytes of main memory that each result costs."""
    if each.opcode in ("slice-start", "copy-start"):
        destination = _destination(each)
        yield destination.bytes if _far(destination) else 0
        return
    if inner is None:
        if each.opcode in _UPDATES:
            update = _shapes_of(computation, each.operands[_UPDATES[each.opcode]])
            yield sum(shape.bytes for shape in update if _far(each.shapes[0]))
            return
        kept = each.in_place if each.opcode == "custom-call" else {}
        yield from (s.bytes for n, s in enumerate(each.shapes) if _far(s) and n not in kept)
        return
    roots = inner.root.operands if inner.root.opcode == "tuple" else (inner.root.name,)
    for shape, name in zip(each.shapes, roots, strict=False):
        if _far(shape):
            part = _update(inner, name)
            yield shape.bytes if part is None else min(shape.bytes, part)


def _update(inner: Computation, name: str) -> int | None:
    """Bytes of the update that a result is an argument with, None when it is made anew."""
    value = inner.by_name.get(name)
    while value is not None and value.opcode == "bitcast":
        value = inner.by_name.get(value.operands[0])
    if value is None or value.opcode not in _UPDATES:
        return None
    number = _UPDATES[value.opcode]
    return sum(shape.bytes for shape in _shapes_of(inner, value.operands[number]))


def _rounds(loop: Instruction, condition: Computation, body: Computation) -> int | None:
    """How often a loop runs: a counter from 0 that stays below a constant."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    limit = [
        int(each.operands[0])
        for each in condition.instructions
        if each.opcode == "constant" and each.operands[0].isdigit()
    ]
    indices = [
        int(each.attribute("index") or 0)
        for each in condition.instructions
        if each.opcode == "get-tuple-element"
    ]
    if len(limit) != 1 or len(indices) != 1 or body.root.opcode != "tuple":
        return None
    step = _step(body, body.by_name.get(body.root.operands[indices[0]]))
    return None if step is None else math.ceil(limit[0] / step)


def _step(body: Computation, value: Instruction | None) -> int | None:
    """What a round adds to the counter."""
    added = 0
    while value is not None and value.opcode in ("add", "copy", "get-tuple-element"):
        if value.opcode == "get-tuple-element":
            return added or None
        operands = [body.by_name.get(name) for name in value.operands]
        constants = [one for one in operands if one is not None and one.opcode == "constant"]
        others = [one for one in operands if one is not None and one.opcode != "constant"]
        if len(others) != 1 or (value.opcode == "add" and len(constants) != 1):
            return None
        added += sum(int(one.operands[0]) for one in constants)
        value = others[0]
    return None


def _collective(opcode: str) -> str | None:
    name = opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _is_copy(each: Instruction, inner: Computation | None) -> bool:
    if each.opcode in ("copy", "transpose", "copy-start"):
        return True
    return inner is not None and all(
        one.opcode in ("parameter", "copy", "bitcast", "transpose") for one in inner.instructions
    )


def _what(each: Instruction) -> str:
    named = re.search(r'op_name="([^"]*)"', each.attributes)
    shape = each.shapes[0]
    sizes = ",".join(map(str, shape.sizes))
    return f"{shape.type}[{sizes}]" + (f" {named[1]}" if named else "")


def _destination(each: Instruction) -> Shape:
    """Of an asynchronous copy: (destination, source, ..); of a slice: (source, destination, ..)."""
    return each.shapes[1] if each.opcode == "slice-start" else each.shapes[0]


def _operand_shapes(computation: Computation, each: Instruction) -> tuple[Shape, ...]:
    return tuple(shape for name in each.operands for shape in _shapes_of(computation, name))


def _shapes_of(computation: Computation, name: str) -> tuple[Shape, ...]:
    found = computation.by_name.get(name)
    return found.shapes if found is not None else ()


def _far(shape: Shape) -> bool:
    return not shape.on_chip


def _no_work(each: Instruction) -> bool:
    return each.opcode == "custom-call" and any(
        f'custom_call_target="{name}"' in each.attributes for name in _NO_WORK
    )
