"""The published rows of page 002, compiled as our own server would run them on the same chips."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from capacity.compiled.answer import Answer
from capacity.compiled.ask import Ask
from capacity.compiled.roofline import Throughput, throughput
from capacity.compiled.search import Largest, largest
from capacity.compiled.target import Target, target_of
from capacity.memory.need import largest_batch, memory_need
from capacity.serving.lengths import Lengths
from capacity.work.setting import Setting
from server.models import sizes


@dataclass(frozen=True)
class Rates:
    """Output tokens a second of the slice. limit: no run of these programs can pass it; cycles:
    with the compiler's cycles. Both None for what does not fit.
    """

    limit: Throughput | None
    cycles: Throughput | None


@dataclass(frozen=True)
class CompiledRow:
    """A published setting: what it needs and can reach, and what the chips could hold instead.

    expected: the largest batch by the engine's count and what this answer needs beyond it, without
    a further compile. `largest` None: not searched for. `best` then too.
    """

    setting: Setting
    answer: Answer
    rates: Rates
    expected: int
    largest: Largest | None = None
    best: Rates | None = None


@dataclass(frozen=True)
class RowAsks:
    """How rows are compiled. `ask` answers; `step`: batches of a search are its multiples, of which
    at most `most` are compiled."""

    ask: Callable[[Ask], Answer]
    programs: str
    lengths: Lengths
    step: int
    most: int


def compile_row(setting: Setting, asks: RowAsks) -> CompiledRow:
    """A setting as published."""
    answer = asks.ask(ask_of(setting, asks.programs, target_of(setting.slice)))
    rates = _rates(answer, setting, setting.slots, asks.lengths)
    expected = expected_batch(setting, answer)
    return CompiledRow(setting, answer, rates, expected - expected % asks.step)


def search_row(row: CompiledRow, asks: RowAsks) -> CompiledRow:
    """The row with the largest batch that its chips hold."""
    asked = ask_of(row.setting, asks.programs, target_of(row.setting.slice))
    best = find_largest(row.setting, asked, asks.step, asks.most, asks.ask, row.answer)
    rates = _rates(best.answer, row.setting, best.slots, asks.lengths)
    return replace(row, largest=best, best=rates)


def ask_of(setting: Setting, programs: str, target: Target, steps: int = 1) -> Ask:
    """What to compile for a setting."""
    return Ask(
        target=target,
        model=asdict(setting.model),
        slots=setting.slots,
        weights=setting.weights,
        cache=setting.cache,
        sharding=setting.sharding,
        cache_length=setting.cache_length,
        chunk=setting.chunk,
        steps=steps,
        programs=programs,
    )


def find_largest(
    setting: Setting,
    ask: Ask,
    step: int,
    most: int,
    answer: Callable[[Ask], Answer],
    known: Answer | None = None,
) -> Largest:
    """The search begins at what the engine's own count says, or after the `known` answer to the
    setting itself at what that lets expect; batches are multiples of `step` and of the chips that
    share the slots."""
    shared = setting.replicas
    step = -(-step // shared) * shared
    return largest(
        lambda slots: answer(ask.with_slots(slots)),
        lambda one: one.fits,
        expected_batch(setting, known) if known is not None else largest_batch(setting, 0.0),
        step,
        most,
        {setting.slots: known} if known is not None else None,
    )


def expected_batch(setting: Setting, known: Answer) -> int:
    """The largest batch that should fit, after the answer to one: what it needs beyond the engine's
    own count stays as it is. 0 when not even the fewest slots do."""
    if not known.memory:
        return largest_batch(setting, 0.0)
    beyond = known.memory - memory_need(setting).total
    return sizes.largest_fitting(
        lambda slots: memory_need(replace(setting, slots=slots)).total + beyond <= known.limit,
        setting.replicas,
    )


def _rates(answer: Answer, setting: Setting, slots: int, lengths: Lengths) -> Rates:
    if not answer.fits or not slots:
        return Rates(None, None)

    def reached(cycles: bool) -> Throughput | None:
        where, weights = setting.slice, setting.weights
        return throughput(answer, slots, 1, where, weights, lengths.inputs, lengths.outputs, cycles)

    return Rates(reached(False), reached(True))
