"""Which prompts a run uses, and how often."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from client.errors import UsageError
from client.workloads.prompt import Prompt

Item = TypeVar("Item")


@dataclass(frozen=True)
class Selection:
    """The prompts of a run in the order they are sent. `distinct` of them differ."""

    prompts: tuple[Prompt, ...]
    distinct: int

    @property
    def most_uses(self) -> int:
        """How often the most used prompt is used."""
        return -(-len(self.prompts) // self.distinct)

    def describe(self) -> str:
        """One line for the table and the record."""
        if self.most_uses == 1:
            return f"{self.distinct} distinct prompts, each used once"
        return f"{self.distinct} distinct prompts, each used up to {self.most_uses} times"


def select(
    conversations: Sequence[Item],
    read: Callable[[Iterator[Item]], Iterator[Prompt]],
    count: int,
    seed: int,
    repeat: bool,
) -> Selection:
    """Chooses `count` prompts, the same for the same data, rules and seed.

    The conversations are shuffled and read until there are enough. If there are not, the prompts
    are used again in a new order each time, no prompt more than once more than another; without
    `repeat` there are fewer than `count`. Raises `UsageError` when no conversation fits.
    """
    generator = random.Random(seed)
    order = list(range(len(conversations)))
    generator.shuffle(order)
    distinct: list[Prompt] = []
    for prompt in read(conversations[index] for index in order):
        distinct.append(prompt)
        if len(distinct) == count:
            break
    if not distinct:
        raise nothing_fits(len(conversations))
    chosen = list(distinct)
    while repeat and len(chosen) < count:
        chosen += generator.sample(distinct, min(len(distinct), count - len(chosen)))
    return Selection(tuple(chosen), len(distinct))


def nothing_fits(count: int) -> UsageError:
    """The error for data of `count` conversations or prompts none of which may be used."""
    return UsageError(
        f"none of {count} conversations or prompts fits the rules; look at --min-input-length, "
        "--max-input-length, --max-target-length, --conversation-starter"
    )


def sample_by_length(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """One prompt for each power of two of prompt length, so each prefill size is met once."""
    by_size: dict[int, Prompt] = {}
    for prompt in prompts:
        by_size.setdefault(max(len(prompt.token_ids) - 1, 0).bit_length(), prompt)
    return tuple(by_size[size] for size in sorted(by_size))
