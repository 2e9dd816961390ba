"""XLA's text of a compiled program, taken apart.

Format: https://openxla.org/xla/hlo_text ; layouts are `{minor to major:T(tiles)S(memory space)}`,
memory space 0, which is not written, being the device's main memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_BITS = {
    **dict.fromkeys(("pred", "s8", "u8"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
    "c128": 128,
}
_SHAPE = re.compile(r"(?P<type>[a-z]\w*)\[(?P<sizes>[\d,<=]*)\](?:\{(?P<layout>[^}]*)\})?")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r"\s*(?P<opcode>[a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?([^,}\s]+)")


@dataclass(frozen=True)
class Shape:
    """An array. `layout` as printed; `on_chip`: it is not in the device's main memory."""

    type: str
    sizes: tuple[int, ...]
    layout: str = ""

    @property
    def on_chip(self) -> bool:
        """Whether it lies in a memory of its own beside the processor."""
        return "S(" in self.layout

    @property
    def bytes(self) -> int:
        """Without padding; 0 for what is no data (tokens)."""
        count = 1
        for size in self.sizes:
            count *= size
        return count * _bits(self.type) // 8


@dataclass(frozen=True)
class Instruction:
    """One operation. `shapes` are the arrays it gives, those of a tuple in order."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool = False

    def attribute(self, name: str) -> str | None:
        """A plain attribute such as `calls` or `index`, without the % of names."""
        found = re.search(rf"\b{name}=\{{?%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    @property
    def branches(self) -> tuple[str, ...]:
        """Computations that a conditional chooses from."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return tuple(name.strip().lstrip("%") for name in found[1].split(","))
        both = (self.attribute("true_computation"), self.attribute("false_computation"))
        return tuple(name for name in both if name)

    @property
    def in_place(self) -> dict[int, int]:
        """Results that lie where an operand lay: result -> operand. For one that is no tuple, 0."""
        start = self.attributes.find("output_to_operand_aliasing={")
        if start < 0:
            return {}
        text = self.attributes[start : self.attributes.find("}}", start)]
        return {int(n or 0): int(m) for n, m in re.findall(r"\{(\d*)\}:\s*\((\d+),", text)}

    @property
    def cycles(self) -> int | None:
        """The TPU compiler's own estimate; other compilers give none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Computation:
    """Instructions in the order of the text."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Its instructions."""
        return {each.name: each for each in self.instructions}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each."""
        found: dict[str, list[Instruction]] = {each.name: [] for each in self.instructions}
        for each in self.instructions:
            for operand in dict.fromkeys(each.operands):
                found.setdefault(operand, []).append(each)
        return found

    @cached_property
    def root(self) -> Instruction:
        """What it gives."""
        return next((each for each in self.instructions if each.root), self.instructions[-1])

    def parameter(self, number: int) -> Instruction | None:
        """By its place."""
        for each in self.instructions:
            if each.opcode == "parameter" and each.operands == (str(number),):
                return each
        return None


@dataclass(frozen=True)
class Module:
    """A whole program. `aliases`: outputs in the place of an argument, output -> argument."""

    entry: Computation
    computations: dict[str, Computation] = field(repr=False)
    aliases: dict[int, int]


def parse(text: str) -> Module:
    """The text of `compiled.as_text()`. ValueError when it has no entry."""
    computations: dict[str, Computation] = {}
    entry: Computation | None = None
    for name, is_entry, lines in _blocks(text):
        one = Computation(name, tuple(each for line in lines if (each := _instruction(line))))
        computations[name] = one
        entry = one if is_entry else entry
    if entry is None:
        raise ValueError("no ENTRY computation in this text; it is no compiled program")
    return Module(entry, computations, _aliases(text.partition("\n")[0]))


def _blocks(text: str) -> Iterator[tuple[str, bool, list[str]]]:
    name, is_entry = "", False
    lines: list[str] = []
    for line in text.splitlines():
        if (start := _COMPUTATION.match(line)) is not None:
            name, is_entry, lines = start["name"], bool(start["entry"]), []
        elif line.startswith("}") and name:
            yield name, is_entry, lines
            name = ""
        elif name:
            lines.append(line)


def _instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if found is None:
        return None
    rest = found["rest"]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shapes, rest = rest[:end], rest[end:]
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    start = opcode.end() - 1
    close = start + _closing(rest[start:])
    inside = rest[start + 1 : close]
    if opcode["opcode"] in ("parameter", "constant"):
        operands: tuple[str, ...] = (inside,)
    else:
        operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(
        found["name"], opcode["opcode"], _shapes(shapes), operands, rest[close + 1 :],
        bool(found["root"]),
    )  # fmt: skip


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        Shape(
            each["type"],
            tuple(int(size.lstrip("<=")) for size in each["sizes"].split(",") if size),
            each["layout"] or "",
        )
        for each in _SHAPE.finditer(text)
        if _bits(each["type"]) is not None
    )


def _bits(name: str) -> int:
    if name in _BITS:
        return _BITS[name]
    return 8 if name.startswith("f8") else 4 if name.startswith("f4") else 0


def _closing(text: str) -> int:
    """Where the parenthesis that opens at 0 is closed."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses: {text[:80]!r}")


def _aliases(header: str) -> dict[int, int]:
    start = header.find("input_output_alias={")
    if start < 0:
        return {}
    pairs = re.findall(r"\{(\d*)(?:,[\d, ]*)?\}:\s*\((\d+),", header[start:])
    return {int(output or 0): int(argument) for output, argument in pairs}
