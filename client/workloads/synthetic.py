"""Made-up prompts of set lengths, with or without beginnings they share."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from client.errors import UsageError
from client.workloads.lengths import LengthSettings, draw_lengths
from client.workloads.limits import Limits
from client.workloads.prompt import Prompt
from client.workloads.writer import Writer


@dataclass(frozen=True)
class SharedPrefixes:
    """`number` different beginnings of `length` tokens, each used equally often."""

    length: int = 256
    number: int = 1

    def __post_init__(self) -> None:
        for option, value in (("--prefix-len", self.length), ("--num-prefixes", self.number)):
            if value < 1:
                raise UsageError(f"{option}: 1 or more; got {value}")


@dataclass(frozen=True)
class Synthetic:
    """The prompts, and how many of the lengths drawn were cut to the limits."""

    prompts: tuple[Prompt, ...]
    clipped: int


def make_synthetic(
    lengths: LengthSettings,
    prefixes: SharedPrefixes | None,
    limits: Limits,
    output_length: int,
    count: int,
    seed: int,
    writer: Writer,
) -> Synthetic:
    """`count` prompts with the lengths drawn, after a shared beginning where there are `prefixes`.

    `output_length` above 0 is asked of every request.

    Each differs from every other in the first few tokens of its own, so a prefix cache can keep
    no more than the shared beginning. (Very short prompts run out of differences.) Raises
    `UsageError` when a prompt is to be shorter than one word and the beginning of sequence.
    """
    generator = np.random.default_rng(seed)
    beginnings = _beginnings(prefixes, generator, writer)
    drawn = draw_lengths(lengths, count, generator)
    least = writer.shortest
    if not prefixes and lengths.inputs < least:
        raise UsageError(
            f"--random-input-len: {least} or more with this tokenizer, which starts prompts with "
            f"a token of its own; got {lengths.inputs}"
        )
    turns = generator.permutation(count) % len(beginnings)
    stamps = _stamps(count, len(writer.vocabulary), generator)
    prompts, clipped = [], 0
    for number, (own, outputs) in enumerate(drawn):
        beginning = beginnings[turns[number]]
        full = max(len(beginning) + own, least)
        wanted = full, output_length or outputs
        inputs, asked = limits.clip(*wanted)
        clipped += (inputs, asked) != wanted
        words = _words(inputs, beginning, next(stamps), writer, generator)
        name = f"synthetic-{number}"
        prompts.append(writer.write(name, words, asked, generator, keep=len(beginning)))
    return Synthetic(tuple(prompts), clipped)


def _beginnings(
    prefixes: SharedPrefixes | None, generator: np.random.Generator, writer: Writer
) -> list[list[int]]:
    if prefixes is None:
        return [[]]
    stamps = _stamps(prefixes.number, len(writer.vocabulary), generator)
    words = (_words(prefixes.length, [], stamp, writer, generator) for stamp in stamps)
    return [writer.settle(each, generator) for each in words]


def _words(
    length: int,
    beginning: Sequence[int],
    stamp: np.ndarray,
    writer: Writer,
    generator: np.random.Generator,
) -> list[int]:
    """`beginning`, the stamp as words, then random words; `length` in all."""
    # What the beginning of sequence takes the place of must not be the stamp.
    gap = [] if beginning else writer.random(writer.shortest - 1, generator)
    head = [*beginning, *gap, *writer.vocabulary.take(stamp)]
    return [*head[:length], *writer.random(max(length - len(head), 0), generator)]


def _stamps(count: int, words: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """For each of `count` prompts the places of the words it starts with; no two are alike."""
    digits = max(1, math.ceil(math.log(max(count, 2), words)))
    places = generator.permutation(words)
    for number in range(count):
        yield places[[number // words**digit % words for digit in range(digits)]]
