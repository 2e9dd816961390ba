"""From settings to the requests of a run."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.workloads.entry import Entry, prompts_of
from client.workloads.hub import load_hub, load_hub_sharegpt
from client.workloads.hub_rows import as_conversations, as_entries, holds_conversations
from client.workloads.jsonl import read_jsonl
from client.workloads.multi_turn import (
    conversations_from,
    select_conversations,
    with_think_times,
)
from client.workloads.prompt import Prompt
from client.workloads.selection import select
from client.workloads.session import Session, single
from client.workloads.settings import WorkloadSettings
from client.workloads.sharegpt import prompts_from, read_sharegpt
from client.workloads.synthetic import make_synthetic
from client.workloads.timed import timed_entries
from client.workloads.trace import make_from_trace
from client.workloads.trace_file import read_trace
from client.workloads.workload import Workload
from client.workloads.writer import Writer
from tokenization import Tokenizer


def build_workload(
    settings: WorkloadSettings,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    count_sessions: bool = False,
) -> Workload:
    """The `count` requests of a run, the same for the same settings, data, tokenizer and seed.

    There are fewer where the data run out: with `repeat` off, and in traces, which are used once.
    Every turn of a conversation is a request; with `count_sessions` there are `count` sessions
    instead, however many turns they have. Raises `UsageError` for data that cannot be read or
    of which nothing fits the rules.
    """
    if count < 1:
        raise UsageError(f"requests: 1 or more; got {count}")
    if settings.kind in ("synthetic", "prefix"):
        return _synthetic(settings, tokenizer, count, seed)
    if settings.kind == "trace":
        return _trace(settings, tokenizer, count, seed)
    if settings.kind == "jsonl":
        return _jsonl(settings, tokenizer, count, seed)
    if settings.kind == "hf":
        return _hub(settings, tokenizer, count, seed, count_sessions)
    if settings.kind == "sharegpt-hub":
        conversations = load_hub_sharegpt()
    else:
        conversations = read_sharegpt(settings.path or _sample_path())
    return _conversations(conversations, settings, tokenizer, count, seed, count_sessions)


def _sample_path() -> Path:
    return Path(__file__).resolve().parents[2] / "datasets" / "sample_sharegpt.json"


def _conversations(
    conversations: Sequence[dict[str, Any]],
    settings: WorkloadSettings,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    count_sessions: bool,
) -> Workload:
    if settings.multi_turn is not None:
        return _multi_turn(conversations, settings, tokenizer, count, seed, count_sessions)
    read = partial(prompts_from, rules=settings.sharegpt_rules, tokenizer=tokenizer)
    chosen = select(conversations, read, count, seed, settings.repeat)
    sessions = tuple(single(prompt) for prompt in chosen.prompts)
    return Workload(sessions, chosen.distinct, chosen.most_uses, chosen.describe())


def _multi_turn(
    conversations: Sequence[dict[str, Any]],
    settings: WorkloadSettings,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    count_sessions: bool,
) -> Workload:
    rules, asked = settings.sharegpt_rules, settings.multi_turn
    assert asked is not None
    generator = random.Random(seed)
    order = list(range(len(conversations)))
    generator.shuffle(order)
    in_order = (conversations[index] for index in order)
    read = conversations_from(in_order, rules, asked, tokenizer)
    chosen, distinct = select_conversations(
        conversations, read, count, count_sessions, generator, settings.repeat
    )
    sessions = with_think_times(chosen, asked.think_time, seed)
    longest = max(len(session.turns) for session in sessions)
    return _workload(
        sessions,
        f"{len(sessions)} conversations ({distinct} distinct) of up to {longest} turns, "
        f"{sum(len(session.turns) for session in sessions)} requests",
    )


def _synthetic(settings: WorkloadSettings, tokenizer: Tokenizer, count: int, seed: int) -> Workload:
    writer = _writer(tokenizer)
    lengths, output_length = settings.lengths, settings.output_length
    made = make_synthetic(
        lengths, settings.prefixes, settings.limits, output_length, count, seed, writer
    )
    kind = "synthetic prompts"
    if settings.prefixes is not None:
        number, length = settings.prefixes.number, settings.prefixes.length
        kind = f"prompts over {number} shared prefixes of {length} tokens"
    parts = [f"{count} {kind}, {_sizes(made.prompts)}"]
    if made.clipped:
        parts.append(f"{made.clipped} cut to the limits")
    return _workload([single(prompt) for prompt in made.prompts], *parts, *_inexact(writer))


def _trace(settings: WorkloadSettings, tokenizer: Tokenizer, count: int, seed: int) -> Workload:
    assert settings.path is not None
    rows, writer = read_trace(settings.path), _writer(tokenizer)
    made = make_from_trace(
        rows, settings.trace, settings.limits, settings.output_length, count, seed, writer
    )
    parts = [f"{len(made.prompts)} of {len(rows)} requests of a trace, {_sizes(made.prompts)}"]
    for number, fate in (
        (made.tally.clipped, "cut to the limits"),
        (made.tally.skipped, "over the limits left out"),
        (made.tally.empty, "without tokens left out"),
    ):
        if number:
            parts.append(f"{number} {fate}")
    sessions = [single(*pair) for pair in zip(made.prompts, made.due, strict=True)]
    return _workload(sessions, *parts, *_inexact(writer))


def _jsonl(settings: WorkloadSettings, tokenizer: Tokenizer, count: int, seed: int) -> Workload:
    assert settings.path is not None
    entries = read_jsonl(settings.path)
    if not entries or entries[0].time is None:
        return _entries(entries, settings, tokenizer, count, seed)
    found = timed_entries(entries, settings.entry_rules, settings.trace.speed, tokenizer, count)
    if not found:
        raise UsageError(
            f"none of the {len(entries)} prompts of {settings.path} is within the limits; look at "
            "--min-input-length, --max-input-length, --max-target-length"
        )
    return _workload(found, f"{len(found)} of {len(entries)} prompts, at their own times")


def _hub(
    settings: WorkloadSettings, tokenizer: Tokenizer, count: int, seed: int, count_sessions: bool
) -> Workload:
    assert settings.hub is not None
    rows = load_hub(settings.hub)
    if holds_conversations(rows, settings.hub):
        found = as_conversations(rows, settings.hub)
        return _conversations(found, settings, tokenizer, count, seed, count_sessions)
    if settings.multi_turn is not None:
        raise UsageError(f"--multi-turn: {settings.hub.name} holds single prompts")
    return _entries(as_entries(rows, settings.hub), settings, tokenizer, count, seed)


def _entries(
    entries: Sequence[Entry],
    settings: WorkloadSettings,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
) -> Workload:
    def read(chosen: Iterator[Entry]) -> Iterator[Prompt]:
        return (prompt for _, prompt in prompts_of(chosen, settings.entry_rules, tokenizer))

    chosen = select(entries, read, count, seed, settings.repeat)
    sessions = tuple(single(prompt) for prompt in chosen.prompts)
    return Workload(sessions, chosen.distinct, chosen.most_uses, chosen.describe())


def _writer(tokenizer: Tokenizer) -> Writer:
    try:
        return Writer(tokenizer)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _inexact(writer: Writer) -> list[str]:
    if not writer.inexact:
        return []
    return [
        f"{writer.inexact} texts tokenize to other lengths; --send tokens asks for the exact ones"
    ]


def _sizes(prompts: Sequence[Prompt]) -> str:
    inputs = [len(prompt.token_ids) for prompt in prompts]
    outputs = [prompt.max_tokens for prompt in prompts]
    return f"{_range(inputs)} tokens in, {_range(outputs)} out"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _workload(sessions: Sequence[Session], *parts: str) -> Workload:
    uses = Counter(prompt.token_ids for session in sessions for prompt in session.turns)
    return Workload(tuple(sessions), len(uses), max(uses.values()), "; ".join(parts))
