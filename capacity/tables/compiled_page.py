"""Published rows beside what the compiler says of our own programs for the same chips."""

from collections.abc import Mapping, Sequence
from typing import Any

from capacity.compiled.page import CompiledRow
from capacity.compiled.roofline import Throughput
from capacity.compiled.search import Largest
from capacity.published.rows import PublishedRow
from capacity.tables.compiled import findings, mib, refused
from capacity.tables.markdown import fixed, table

Pairs = Sequence[tuple[PublishedRow, CompiledRow]]


def render_page(pairs: Pairs, lengths: str, versions: Mapping[str, str]) -> list[str]:
    """Memory first, then rates, then what the compiler refused and what stands out."""
    compilers = ", ".join(
        f"{name} {each}" for name, each in versions.items() if name != "loadstone"
    )
    lines = [
        f"Compiled with {compilers}; no chip was used. Memory is per chip.",
        "",
        *_memory(pairs),
        "",
        "Output tokens/s of the slice. *Floor*: bytes that the compiled programs move and FLOPs "
        "that they do, over the chip's rates, every slot always busy, the whole cache read at "
        f"every step, no host time; prompts and answers as in {lengths}. *Cycles*: the same with "
        "the compiler's own estimate of cycles where that is longer. Neither is a measurement.",
        "",
        *_rates(pairs),
        "",
        "The compiler's words and what stands out:",
        "",
    ]
    for published, row in pairs:
        lines += [f"- {_name(published)}: {said}" for said in _said(row)]
    return lines


def as_json(published: PublishedRow, row: CompiledRow) -> dict[str, Any]:
    """All of a row."""
    return {
        "row": published.id,
        "published_tokens_per_s": published.values.get("tokens_per_s"),
        "fits": row.answer.fits,
        "memory_bytes": row.answer.memory,
        "limit_bytes": row.answer.limit,
        "largest_batch": row.largest.slots,
        "largest_batch_exact": row.largest.exact,
        "floor_tokens_per_s": _served(row.floor),
        "cycles_tokens_per_s": _served(row.expected),
        "largest_floor_tokens_per_s": _served(row.floor_best),
        "largest_cycles_tokens_per_s": _served(row.expected_best),
        "answer": row.answer.as_dict(),
        "largest_answer": row.largest.answer.as_dict(),
    }


def _memory(pairs: Pairs) -> list[str]:
    headers = [
        "Published row", "Batch", "Needs, MiB", "of which stays", "temporaries", "code", "Of MiB",
        "Fits", "Largest batch", "Needs, MiB",
    ]  # fmt: skip
    rows = []
    for published, row in pairs:
        answer, best = row.answer, row.largest
        inner = [answer.arguments, answer.temporaries - answer.code, answer.code]
        more = "" if best.exact else " or more"
        rows.append([
            _name(published), f"{row.setting.slots:,}", mib(answer.memory),
            *(mib(size) if answer.programs else "-" for size in inner), mib(answer.limit),
            "yes" if answer.fits else "no", f"{best.slots:,}{more}" if best.slots else _no(best),
            mib(best.answer.memory) if best.slots else "-",
        ])  # fmt: skip
    return table(headers, rows)


def _rates(pairs: Pairs) -> list[str]:
    headers = [
        "Published row", "Batch", "Published", "Floor", "Cycles", "Published / floor",
        "Largest batch", "Floor", "Cycles",
    ]  # fmt: skip
    rows = []
    for published, row in pairs:
        printed, reached = published.values["tokens_per_s"], _served(row.floor)
        rows.append([
            _name(published), f"{row.setting.slots:,}", fixed(printed, 0), fixed(reached, 0),
            fixed(_served(row.expected), 0), "-" if reached is None else f"{printed / reached:.0%}",
            f"{row.largest.slots:,}" if row.largest.slots else _no(row.largest),
            fixed(_served(row.floor_best), 0), fixed(_served(row.expected_best), 0),
        ])  # fmt: skip
    return table(headers, rows)


def _no(best: Largest) -> str:
    return "none" if best.exact else "not found"


def _said(row: CompiledRow) -> list[str]:
    said = [f"refused, {refused(each)}" for each in row.answer.refusals]
    if not row.answer.refusals and not row.answer.fits:
        said.append(
            f"each program is taken, but with the code of all {len(row.answer.every)} it is "
            f"{mib(row.answer.memory)} of {mib(row.answer.limit)} MiB"
        )
    return said + findings(row.answer)


def _served(found: Throughput | None) -> float | None:
    return None if found is None else found.served


def _name(row: PublishedRow) -> str:
    where = f"{row.chip}-{row.chips}"
    weights = "int8" if row.weights == "int8" else "bf16"
    return f"{row.model} {weights}, {row.cache_length:,} positions, {where}"
