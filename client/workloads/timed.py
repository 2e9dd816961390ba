"""Entries that say themselves when they are due."""

from collections.abc import Sequence

from client.workloads.entry import Entry, EntryRules, prompts_of
from client.workloads.session import Session, single
from tokenization import Tokenizer


def timed_entries(
    entries: Sequence[Entry], rules: EntryRules, speed: float, tokenizer: Tokenizer, count: int
) -> list[Session]:
    """The first `count` entries by time that fit, each due `speed` times as fast as it says.

    Times count from the first entry, whether it fits or not. Every entry has a time.
    """
    in_order = sorted(entries, key=_time)
    sessions = []
    for entry, prompt in prompts_of(in_order, rules, tokenizer):
        sessions.append(single(prompt, due=(_time(entry) - _time(in_order[0])) / speed))
        if len(sessions) == count:
            break
    return sessions


def _time(entry: Entry) -> float:
    assert entry.time is not None
    return entry.time
