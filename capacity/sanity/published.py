"""Published rows that cannot be right, found by arithmetic."""

from collections.abc import Callable, Iterator

from capacity.published import jetstream, torchcap
from capacity.published.model import Chips, PageModel
from capacity.published.pages import MODELS
from capacity.published.rows import PublishedRow, published
from capacity.sanity.finding import ABOVE_ROOFLINE, CANNOT_FIT, CONTRADICTS, Finding
from capacity.sanity.roofline import beats, memory_excess, percent_off

# How far values of one row may be apart that should be equal; rounding as printed is added.
_TOLERANCE = 0.015
_THROUGHPUTS = ("tokens_per_s",)


def check_page(model: PageModel, chips: Chips) -> list[Finding]:
    """Every finding about a page."""
    found: list[Finding] = []
    for row in model.page.rows:
        if row.status == "ok" and model.metric in row.values:
            found += _check_fit(model, row, chips)
            found += _check_roofline(model, row, chips)
        for check in _CONSISTENT.get(model.number, ()):
            found += check(row, chips)
    return found


def check_all(chips: Chips) -> list[Finding]:
    """Of all pages."""
    return [finding for model in MODELS.values() for finding in check_page(model, chips)]


def doubts(model: PageModel, chips: Chips) -> dict[str, str]:
    """Rows whose calibrated metric is not believed, and why: known errors and findings."""
    known = dict(model.page.wrong_values(model.metric))
    for finding in check_page(model, chips):
        if finding.metric == model.metric:
            known[finding.row] = f"{finding.kind}: {finding.arithmetic}"
    return known


def _about(row: PublishedRow) -> str:
    words = [row.model, row.chip + (f" x {row.chips}" if row.chips > 1 else ""), row.variant]
    words.append(f"batch {row.batch}" if row.batch else "")
    return ", ".join(word for word in words if word)


def _finding(row: PublishedRow, kind: str, metric: str, arithmetic: str) -> Finding:
    return Finding(row.id, _about(row), kind, metric, arithmetic)


def _check_fit(model: PageModel, row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    if model.number == "002":
        # Its cache is whole for every slot.
        problem = memory_excess(jetstream.setting_of(row, chips), row.batch, row.cache_length)
        if problem:
            yield _finding(row, CANNOT_FIT, model.metric, problem)
    memory = row.values.get("memory_gib")
    has = chips[row.chip].need("memory_gib")
    if memory is not None and memory > has:
        yield _finding(row, CANNOT_FIT, "memory_gib", f"{memory} GiB on a card of {has:.0f} GiB")


def _check_roofline(model: PageModel, row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    measured, ideal = model.measured(row), model.bound(row, chips)
    more = model.metric in _THROUGHPUTS
    if beats(measured, ideal, more):
        times = measured / ideal if more else ideal / measured
        yield _finding(
            row,
            ABOVE_ROOFLINE,
            model.metric,
            f"{measured:,.4g} {model.unit} printed; every peak reached gives {ideal:,.4g}, so "
            f"it would be {times:.2f} times the roofline",
        )


def _bloom(row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    del chips
    throughput, seconds = row.values.get("tokens_per_s"), row.values.get("generate_s")
    if throughput and seconds and _apart(tokens := throughput * seconds / row.batch, 100, 0.02):
        yield _finding(
            row,
            CONTRADICTS,
            "generate_s",
            f"{throughput} tokens/s x {seconds} s / {row.batch} = {tokens:.1f} tokens each, and "
            f"100 were made: {100 * row.batch / throughput:.2f} s fits the throughput",
        )


def _bitsandbytes(row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    del chips
    step, throughput = row.values.get("decode_step_s"), row.values.get("tokens_per_s")
    if step and throughput and _apart(rows := step * throughput, row.batch, _TOLERANCE):
        yield _finding(
            row,
            CONTRADICTS,
            "decode_step_s",
            f"{step} s x {throughput} tokens/s = {rows:.2f}, and the batch is {row.batch} "
            f"({percent_off(rows, row.batch)})",
        )
    given, new = row.values.get("latency_improvement"), row.values.get("throughput_improvement")
    if given and new and _apart(given, 1 + (1 - 1 / new), 0.02):
        yield _finding(
            row,
            CONTRADICTS,
            "latency_improvement",
            f"{given} printed; 1 + (1 - 1 / {new}) = {2 - 1 / new:.2f}",
        )


def _starcoder2(row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    del chips
    speedup = row.values.get("speedup")
    slower = next(
        (
            other.values["minibatch_s"]
            for other in published()["003"].rows
            if other.variant.startswith("SDPA")
            and other.compute == row.compute
            and (other.batch, other.prompt) == (row.batch, row.prompt)
            and other.values
        ),
        None,
    )
    if speedup and slower:
        ratio = slower / row.values["minibatch_s"]
        # The page cuts digits off rather than rounding them.
        if _apart(speedup, ratio, _TOLERANCE):
            yield _finding(
                row,
                CONTRADICTS,
                "speedup",
                f"{speedup} printed; {slower} / {row.values['minibatch_s']} = {ratio:.2f}",
            )


def _torchcap(row: PublishedRow, chips: Chips) -> Iterator[Finding]:
    tokens = torchcap.BATCH * torchcap.TOKENS
    seconds = row.values["runtime_ms"] / 1e3
    watts = chips[row.chip].need("watts")
    energy = row.values["joule_per_token"]
    # Printed with three decimals.
    if abs(energy - watts * seconds / tokens) > 0.00051:
        yield _finding(
            row,
            CONTRADICTS,
            "joule_per_token",
            f"{energy} J/token printed; one card's {watts:.0f} W x {seconds:.4f} s / {tokens:,} = "
            f"{watts * seconds / tokens:.4f}, and {energy * tokens / seconds:.0f} W would fit",
        )
    estimate, measured = row.page_estimate["memory_gib"], row.values["memory_gib"]
    printed = row.page_error_percent["memory_gib"]
    implied = 100 * (estimate - measured) / estimate
    if abs(implied - printed) > 0.25:
        yield _finding(
            row,
            CONTRADICTS,
            "memory_gib",
            f"estimated {estimate} and measured {measured} GiB make {implied:+.2f}%, and "
            f"{printed:+.2f}% is printed",
        )


def _apart(value: float, expected: float, tolerance: float) -> bool:
    return abs(value / expected - 1) > tolerance


_CONSISTENT: dict[str, tuple[Callable[[PublishedRow, Chips], Iterator[Finding]], ...]] = {
    "000": (_bloom,),
    "001": (_bitsandbytes,),
    "003": (_starcoder2,),
    "004": (_torchcap,),
}
