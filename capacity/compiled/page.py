"""The published rows of page 002, compiled as our own server would run them on the same chips."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from capacity.compiled.answer import Answer
from capacity.compiled.ask import Ask
from capacity.compiled.roofline import Throughput, throughput
from capacity.compiled.search import Largest, largest
from capacity.compiled.target import Target, target_of
from capacity.hardware.slice import Slice
from capacity.memory.need import largest_batch
from capacity.serving.lengths import Lengths
from capacity.work.setting import Setting


@dataclass(frozen=True)
class CompiledRow:
    """A published setting: what it needs, and what the chips could hold instead.

    floor: output tokens a second that no run of these programs can pass; expected: with the
    compiler's cycles. Both None for what does not fit; `_best` of the largest batch that does.
    """

    setting: Setting
    answer: Answer
    largest: Largest
    floor: Throughput | None
    expected: Throughput | None
    floor_best: Throughput | None
    expected_best: Throughput | None


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


def compile_rows(
    settings: list[Setting],
    programs: str,
    lengths: Lengths,
    step: int,
    most: int,
    ask: Callable[[Ask], Answer],
) -> Iterator[CompiledRow]:
    """Each setting as published, then the largest batch, by at most `most` further compiles; with
    0 the published batch stands for it."""
    for setting in settings:
        target = target_of(setting.slice)
        as_asked = ask_of(setting, programs, target)
        answer = ask(as_asked)
        best = _as_published(setting, answer)
        if most:
            best = find_largest(setting, as_asked, step, most, ask)
        yield CompiledRow(
            setting,
            answer,
            best,
            _reached(answer, setting.slots, setting.weights, setting.slice, lengths, False),
            _reached(answer, setting.slots, setting.weights, setting.slice, lengths, True),
            _reached(best.answer, best.slots, setting.weights, setting.slice, lengths, False),
            _reached(best.answer, best.slots, setting.weights, setting.slice, lengths, True),
        )


def _as_published(setting: Setting, answer: Answer) -> Largest:
    slots = setting.slots
    return Largest(slots if answer.fits else 0, answer, False, (slots,))


def find_largest(
    setting: Setting, ask: Ask, step: int, most: int, answer: Callable[[Ask], Answer]
) -> Largest:
    """The search begins at what the engine's own count says; batches are multiples of `step` and of
    the chips that share the slots."""
    shared = setting.replicas
    step = -(-step // shared) * shared
    start = largest_batch(setting, headroom=0.0)
    return largest(
        lambda slots: answer(ask.with_slots(slots)), lambda one: one.fits, start, step, most
    )


def _reached(
    answer: Answer, slots: int, weights: str, where: Slice, lengths: Lengths, expected: bool
) -> Throughput | None:
    if not answer.fits or not slots:
        return None
    return throughput(answer, slots, 1, where, weights, lengths.inputs, lengths.outputs, expected)
