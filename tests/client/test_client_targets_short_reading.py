"""Answers whose text nobody wants are read a shorter way, to the same counts."""

import json

import pytest

from client.results.records import CountedBy, count_tokens
from client.targets.openai_answer import read_events


def stream(choices: list[dict], usage: int) -> list[tuple[float, bytes]]:
    """One event a read, half a second apart, then the usage and the end."""
    events = [{"choices": [{"index": 0, **choice}]} for choice in choices]
    events.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": usage}})
    raw = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return [(at / 2, data) for at, data in enumerate([*raw, b"data: [DONE]\n\n"])]


@pytest.mark.parametrize(
    ("choices", "usage", "source"),
    [
        ([{"text": f"t{n}"} for n in range(6)], 6, CountedBy.USAGE),
        ([{"text": f"t{n}"} for n in range(6)], 9, CountedBy.USAGE),
        ([{"text": f"t{n}", "token_ids": [n]} for n in range(6)], 6, CountedBy.TOKEN_IDS),
        ([{"text": f"t{n}", "token_ids": [n, n]} for n in range(3)], 6, CountedBy.TOKEN_IDS),
    ],
)
def test_without_text_the_counts_are_the_same(choices, usage, source):
    arrivals = stream(choices, usage)
    found = [
        count_tokens(read_events(arrivals, text=text), lambda whole: []) for text in (True, False)
    ]
    assert found[0] == found[1]
    assert found[1][1] is source
    assert sum(count for _, count in found[1][0]) == usage
