"""What the compiler said, as tables."""

from collections.abc import Mapping

from capacity.compiled.answer import Answer, Program, Refusal
from capacity.compiled.roofline import floor
from capacity.compiled.traffic import Collective
from capacity.hardware.slice import Slice
from capacity.tables.markdown import fixed, number, table

MIB = 2**20
_HEADERS = [
    "Program", "Memory, MiB", "Arguments", "Aliased", "Temporaries", "Code", "Moved, GB", "GFLOP",
    "Collectives", "Floor, ms", "Compiler's cycles, ms", "Compiled in, s",
]  # fmt: skip


def render_programs(answer: Answer, where: Slice, weights: str) -> list[str]:
    """A row a program; what was refused and what stands out below."""
    rows = [_row(program, where, weights) for program in answer.programs]
    lines = table(_HEADERS, rows) if rows else []
    lines += ["", *(f"- refused: {refused(each)}" for each in answer.refusals)]
    lines += [f"- {finding}" for finding in findings(answer)]
    return [*lines, *(f"- {notice}" for notice in answer.notices)]


def render_memory(answer: Answer) -> list[str]:
    """The engine's plan beside what the compiler needs, per device."""
    plan = answer.planned
    counted = plan["weights"] + plan["cache"]
    rows = [
        ["Weights and cache", mib(counted), mib(answer.arguments), _off(counted, answer.arguments)],
        ["Temporaries", mib(plan["temporaries"]), mib(answer.temporaries - answer.code), "-"],
        ["Code of all programs", "-", mib(answer.code), "-"],
        [
            "Sum",
            mib(counted + plan["temporaries"]),
            mib(answer.memory),
            _off(counted + plan["temporaries"], answer.memory),
        ],
    ]
    lines = table(["Per device, MiB", "Planned", "Compiled", "Plan is off by"], rows)
    return [*lines, "", f"A device has {mib(answer.limit)} MiB."]


def findings(answer: Answer) -> list[str]:
    """What an engineer would look at."""
    found = copied(answer)
    for program in answer.programs:
        moved = program.traffic
        gathers = moved.collectives.get("all-gather", Collective(0, 0))
        if gathers.bytes >= MIB:
            found.append(
                f"{program.name}: {gathers.count} all-gathers of {mib(gathers.bytes)} MiB a run"
            )
        if moved.scatters:
            found.append(
                f"{program.name}: {moved.scatters} scatters, of whose time nothing is known"
            )
        if moved.unsure:
            found.append(f"{program.name}: {moved.unsure} loops counted once: rounds unknown")
    return found


def copied(answer: Answer) -> list[str]:
    """What is not updated in place, and what is copied as a whole."""
    found = []
    for program in answer.programs:
        moved = program.traffic
        if program.donated < program.donatable:
            found.append(
                f"{program.name}: {program.donatable - program.donated} of {program.donatable} "
                "arrays of cache and state are not updated in place"
            )
        if moved.copies:
            total = sum(copy.bytes for copy in moved.copies)
            largest = max(moved.copies, key=lambda copy: copy.bytes)
            found.append(
                f"{program.name}: {len(moved.copies)} whole copies in main memory, "
                f"{mib(total)} MiB a run, such as {largest.what}"
            )
    return found


def refused(refusal: Refusal) -> str:
    """In one line, with the numbers where the compiler gave them."""
    if refusal.needed is None or refusal.available is None:
        return f"{refusal.name}: {refusal.message.strip().splitlines()[0][:200]}"
    return (
        f"{refusal.name} needs {mib(refusal.needed)} MiB of a device's {mib(refusal.available)} MiB"
    )


def collectives(found: Mapping[str, Collective]) -> str:
    """Each kind with its number and bytes."""
    kinds = sorted(found.items())
    return ", ".join(f"{each.count} {kind} {mib(each.bytes)} MiB" for kind, each in kinds) or "none"


def mib(size: float) -> str:
    """Whole MiB; decimals below ten."""
    return fixed(size / MIB, 0 if size >= 10 * MIB else 1)


def _row(program: Program, where: Slice, weights: str) -> list[str]:
    step = floor(program, where, weights)
    sizes = (
        program.memory, program.arguments, program.aliased, program.temporaries, program.code,
    )  # fmt: skip
    return [
        program.name,
        *map(mib, sizes),
        number(program.traffic.bytes / 1e9),
        number(program.flops / 1e9),
        collectives(program.traffic.collectives),
        number(step.total * 1e3),
        number(None if step.expected is None else step.expected * 1e3),
        fixed(program.seconds, 1),
    ]


def _off(planned: float, compiled: float) -> str:
    return "-" if not compiled else f"{100 * (planned / compiled - 1):+.2f}%"
