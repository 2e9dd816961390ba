"""ShareGPT conversations as sessions: each turn is asked with the history before it."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.errors import UsageError
from client.workloads.encoding import encode_chat
from client.workloads.prompt import Prompt
from client.workloads.selection import nothing_fits
from client.workloads.session import Session
from client.workloads.sharegpt import (
    ShareGPTRules,
    answered,
    conversation_id,
    problem_of,
    starts_with,
)
from tokenization import Tokenizer, TokenizerError

# As in `sharegpt`: a first answer that is shorter is noise in the data.
_MIN_FIRST_ANSWER = 4


@dataclass(frozen=True)
class MultiTurn:
    """`turns`: asked of one conversation at most, 0: all. `think_time`: mean seconds between an
    answer and the next turn."""

    turns: int = 0
    think_time: float = 0.0

    def __post_init__(self) -> None:
        if self.turns < 0:
            raise UsageError(f"--multi-turn: 0 (all turns) or more; got {self.turns}")
        if not 0 <= self.think_time < float("inf"):
            raise UsageError(f"--think-time: seconds, 0 or more; got {self.think_time}")


Turns = tuple[Prompt, ...]


def conversations_from(
    conversations: Iterable[dict[str, Any]],
    rules: ShareGPTRules,
    settings: MultiTurn,
    tokenizer: Tokenizer,
) -> Iterator[Turns]:
    """The turns of each conversation that fits the rules, tokenized when it is asked for.

    Speakers must take turns; a conversation ends for us where they do not, where an answer is
    empty or missing, or where the next turn would be over the limits. Raises `UsageError` for a
    conversation that is not of ShareGPT form.
    """
    for number, conversation in enumerate(conversations):
        name = conversation_id(conversation, number)
        problem = problem_of(conversation, all_turns=True)
        if problem:
            raise UsageError(f"conversation {name}: {problem}")
        try:
            turns = tuple(_turns(conversation["conversations"], name, rules, settings, tokenizer))
        except TokenizerError as error:
            raise UsageError(f"conversation {name}: {error}") from error
        if turns:
            yield turns


def select_conversations(
    conversations: Sequence[dict[str, Any]],
    read: Iterator[Turns],
    count: int,
    count_sessions: bool,
    generator: random.Random,
    repeat: bool,
) -> tuple[list[Turns], int]:
    """Conversations that hold `count` requests together (the last is cut), and how many differ.

    With `count_sessions` it is `count` conversations. `read` gives them in the order of the run.
    Where there are not enough they are used again in a new order each time; without `repeat`
    there are fewer. Raises `UsageError` when none fits.
    """
    distinct = _until(read, count, count_sessions)
    if not distinct:
        raise nothing_fits(len(conversations))
    chosen = distinct
    while repeat and _size(chosen, count_sessions) < count:
        missing = count - _size(chosen, count_sessions)
        again = generator.sample(distinct, len(distinct))
        chosen = chosen + _until(iter(again), missing, count_sessions)
    surplus = _size(chosen, count_sessions) - count
    if surplus > 0:
        chosen = [*chosen[:-1], chosen[-1][:-surplus]]
    return chosen, len(distinct)


def with_think_times(
    conversations: Sequence[Turns], think_time: float, seed: int
) -> tuple[Session, ...]:
    """Sessions with exponential delays of that mean before every turn but the first."""
    generator = np.random.default_rng([seed, 2])
    sessions = []
    for turns in conversations:
        delays = generator.exponential(think_time, len(turns) - 1).tolist()
        name = turns[0].id.rpartition("/")[0]
        sessions.append(Session(name, turns, (0.0, *delays)))
    return tuple(sessions)


def _until(read: Iterator[Turns], count: int, count_sessions: bool) -> list[Turns]:
    """The first conversations that hold `count` or more."""
    found: list[Turns] = []
    held = 0
    for turns in read:
        found.append(turns)
        held += _size([turns], count_sessions)
        if held >= count:
            break
    return found


def _size(conversations: Sequence[Turns], count_sessions: bool) -> int:
    return len(conversations) if count_sessions else sum(len(turns) for turns in conversations)


def _turns(
    said: Sequence[dict[str, str]],
    name: str,
    rules: ShareGPTRules,
    settings: MultiTurn,
    tokenizer: Tokenizer,
) -> Iterator[Prompt]:
    if len(said) < 2 or not starts_with(said[0]["from"], rules.starter):
        return
    first, second = said[0]["from"], said[1]["from"]
    history: list[tuple[str, str]] = []
    for number, (asked, answer) in enumerate(zip(said[::2], said[1::2], strict=False)):
        if (asked["from"], answer["from"]) != (first, second) or number == (settings.turns or -1):
            return
        history.append(("user", asked["value"]))
        prompt = _prompt(f"{name}/{number}", tuple(history), answer["value"], rules, tokenizer)
        if not _fits(prompt, number, rules):
            return
        yield prompt
        history.append(("assistant", answer["value"]))


def _prompt(
    name: str,
    messages: tuple[tuple[str, str], ...],
    answer: str,
    rules: ShareGPTRules,
    tokenizer: Tokenizer,
) -> Prompt:
    encoded = encode_chat(messages, tokenizer)
    return answered(name, encoded, answer, rules, tokenizer, messages)


def _fits(prompt: Prompt, number: int, rules: ShareGPTRules) -> bool:
    length = len(prompt.token_ids)
    # Later answers may be short: "Yes." is one, and the turns after it need it.
    least = 1 if number else _MIN_FIRST_ANSWER
    return (
        rules.min_input_length <= length <= rules.max_input_length
        and prompt.reference_tokens >= least
        and length + prompt.max_tokens <= rules.max_target_length
    )
