"""Published rows beside what the compiler says of our own programs for the same chips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capacity.calibration.interval import Interval
from capacity.compiled.answer import Answer
from capacity.compiled.page import CompiledRow, Rates
from capacity.compiled.roofline import Throughput, floor
from capacity.published.rows import PublishedRow
from capacity.tables.compiled import MIB, copied, mib, refused
from capacity.tables.markdown import fixed, number, table

# What stands above the table of rates.
_RATES_MEAN = (
    "- *A step*: one decode step, a token for every slot, over the whole cache. It takes at least: "
    "its bytes over the chip's bandwidth or its FLOPs over the peak, the longer, and then its "
    "collectives over the links.",
    "- *Limit*: what that step allows when every slot is always busy and its cache full, the host "
    "takes no time, and prompts are read between the steps. Our server also has programs for "
    "shorter spans, which move less: with short sequences it may pass this limit.",
    "- *By cycles*: the same with the compiler's own estimate of cycles where that is longer. It "
    "leaves out waits and some kernels.",
    "- *Planner expects*: `capacity estimate` of the whole published run (2,000 requests at once, "
    "with its empty slots at the end, each step reading of every slot the span that holds the "
    "longest live one) by our server, of priors alone: no TPU has calibrated them.",
    "- *Published*: jetstream-pytorch's measurement of that run; it reads the whole cache.",
)


@dataclass(frozen=True)
class PageRow:
    """`planned`: tokens a second of the published run that the planner expects of our server;
    `planned_best`: with the largest batch. None for what does not fit or was not tried."""

    published: PublishedRow
    compiled: CompiledRow
    planned: Interval | None = None
    planned_best: Interval | None = None


@dataclass(frozen=True)
class PageHead:
    """How a page came about. `lengths` of requests, for the limits."""

    command: str
    made_on: str
    lengths: str


def render_page(rows: Sequence[PageRow], left: Sequence[PublishedRow], head: PageHead) -> list[str]:
    """Memory, rates, the largest batches, then what the compiler said. `left`: not compiled."""
    lines = [*_head(head), *_missing(left), *_memory(rows), *_rates(rows), *_largest(rows)]
    lines += ["## What the compiler refused or copies", ""]
    said = [f"- {row_name(row.published)}: {one}" for row in rows for one in _said(row.compiled)]
    return lines + (said or ["Nothing."])


def as_json(row: PageRow) -> dict[str, Any]:
    """All of a row."""
    compiled, largest = row.compiled, row.compiled.largest
    found = {
        "row": row.published.id,
        "published_tokens_per_s": row.published.values.get("tokens_per_s"),
        "fits": compiled.answer.fits,
        "memory_bytes": compiled.answer.memory,
        "limit_bytes": compiled.answer.limit,
        "expected_largest_batch": compiled.expected,
        **_rates_json("", compiled.rates, row.planned),
        "answer": compiled.answer.as_dict(),
    }
    if largest is not None and compiled.best is not None:
        found |= {
            "largest_batch": largest.slots,
            "largest_batch_exact": largest.exact,
            "batches_tried": list(largest.asked),
            **_rates_json("largest_", compiled.best, row.planned_best),
            "largest_answer": largest.answer.as_dict(),
        }
    return found


def row_name(row: PublishedRow) -> str:
    """Model, weights, positions and chips."""
    weights = "int8" if row.weights == "int8" else "bf16"
    return f"{row.model} {weights}, {row.cache_length:,} positions, {row.chip}-{row.chips}"


def _head(head: PageHead) -> list[str]:
    return [
        "# Page 002 on TPU v5e, compiled without one",
        "",
        f"    {head.command}",
        "",
        head.made_on,
        "",
        "Page 002 lists what jetstream-pytorch measured on TPU v5e in June 2024. Here each of its "
        "settings (model, weights, batch, positions of cache for each request, chips) is given to "
        "*our* server instead, whose programs the TPU compiler compiles without a TPU: what it "
        "says of memory is exact for that compiler; how fast they run has not been measured. "
        "bf16: weights and cache in bfloat16; int8: both in int8. Requests of the limits are as in "
        f"{head.lengths}. Terms are defined in [capacity-compile.md](../capacity-compile.md).",
        "",
    ]


def _missing(left: Sequence[PublishedRow]) -> list[str]:
    if not left:
        return []
    names = "; ".join(f"{row_name(row)}, batch {row.batch:,}" for row in left)
    return [f"Not compiled, time was up: {names}.", ""]


def _memory(rows: Sequence[PageRow]) -> list[str]:
    headers = [
        "Setting", "Batch", "Needs", "= weights, cache, state", "+ temporaries", "+ code",
        "Chip has", "Fits", "Planner said", "Expected largest batch",
    ]  # fmt: skip
    cells = []
    for row in rows:
        answer = row.compiled.answer
        cells.append([
            row_name(row.published), f"{row.compiled.setting.slots:,}",
            _whole(answer.memory) if answer.memory else "-",
            *_parts(answer), _whole(answer.limit), "yes" if answer.fits else "no",
            _whole(sum(answer.planned.values())), f"{row.compiled.expected:,}",
        ])  # fmt: skip
    return [
        "## Memory of one chip, MiB",
        "",
        "*Needs*: what every program keeps (weights, KV cache, state of the slots), the most that "
        "one of them needs beside that while it runs, and the code of all of them. *Planner "
        "said*: what our server counts before it compiles (no code). *Expected largest batch*: not "
        "compiled; weights and cache as counted, temporaries in proportion to this answer's, its "
        "code. A low estimate where code is large: the compiler makes it small where memory is "
        "short.",
        "",
        *table(headers, cells),
        "",
    ]


def _parts(answer: Answer) -> list[str]:
    if not answer.programs:
        return ["-"] * 3
    inner = (answer.arguments, answer.temporaries - answer.code, answer.code)
    return [_whole(size) for size in inner]


def _rates(rows: Sequence[PageRow]) -> list[str]:
    headers = [
        "Setting", "Batch", "A step moves, GB a chip", "A step takes at least, ms", "Limit",
        "By cycles", "Planner expects (95%)", "Published", "Published / limit",
    ]  # fmt: skip
    cells = []
    for row in rows:
        printed, rates = row.published.values["tokens_per_s"], row.compiled.rates
        limit = _served(rates.limit)
        cells.append([
            row_name(row.published), f"{row.compiled.setting.slots:,}",
            *_step(row.compiled, row.compiled.answer), fixed(limit, 0),
            fixed(_served(rates.cycles), 0), _expected(row.planned), fixed(printed, 0),
            "-" if limit is None else f"{printed / limit:.0%}",
        ])  # fmt: skip
    return [
        "## Output tokens/s of all chips together",
        "",
        *_RATES_MEAN,
        "",
        *table(headers, cells),
        "",
    ]


def _largest(rows: Sequence[PageRow]) -> list[str]:
    if all(row.compiled.largest is None for row in rows):
        return []
    headers = [
        "Setting", "Published batch", "Largest batch", "Tried", "Needs, MiB a chip",
        "A step moves, GB a chip", "A step takes at least, ms", "Limit", "By cycles",
        "Planner expects (95%)",
    ]  # fmt: skip
    return [
        "## The batch that it could run instead",
        "",
        "The largest that the compiler takes, in multiples of a step; \"or more\": batches between "
        "it and the next one tried were not.",
        "",
        *table(headers, [_largest_cells(row) for row in rows]),
        "",
    ]  # fmt: skip


def _largest_cells(row: PageRow) -> list[str]:
    name = [row_name(row.published), f"{row.compiled.setting.slots:,}"]
    best, rates = row.compiled.largest, row.compiled.best
    if best is None or rates is None:
        return [*name, "not tried", *["-"] * 7]
    tried = ", ".join(f"{each:,}" for each in sorted(best.asked))
    if not best.slots:
        return [*name, "none" if best.exact else "not found", tried, *["-"] * 6]
    return [
        *name, f"{best.slots:,}" + ("" if best.exact else " or more"), tried,
        _whole(best.answer.memory), *_step(row.compiled, best.answer),
        fixed(_served(rates.limit), 0), fixed(_served(rates.cycles), 0),
        _expected(row.planned_best),
    ]  # fmt: skip


def _step(row: CompiledRow, answer: Answer) -> list[str]:
    """Bytes and time of a decode step."""
    program = answer.decode
    if program is None:
        return ["-", "-"]
    least = floor(program, row.setting.slice, row.setting.weights).total
    return [number(program.traffic.bytes / 1e9), number(least * 1e3)]


def _expected(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{fixed(found.value, 0)} ({fixed(found.low, 0)} - {fixed(found.high, 0)})"


def _whole(size: float) -> str:
    """To the MiB."""
    return fixed(size / MIB, 0)


def _said(row: CompiledRow) -> list[str]:
    said = [f"refused, {refused(each)}" for each in row.answer.refusals]
    if not row.answer.refusals and not row.answer.fits:
        said.append(
            f"each program is taken, but with the code of all {len(row.answer.every)} it is "
            f"{mib(row.answer.memory)} of {mib(row.answer.limit)} MiB"
        )
    return said + copied(row.answer)


def _rates_json(prefix: str, rates: Rates, planned: Interval | None) -> dict[str, Any]:
    return {
        f"{prefix}limit_tokens_per_s": _served(rates.limit),
        f"{prefix}cycles_tokens_per_s": _served(rates.cycles),
        f"{prefix}planned_tokens_per_s": None if planned is None else planned.value,
    }


def _served(found: Throughput | None) -> float | None:
    return None if found is None else found.served
