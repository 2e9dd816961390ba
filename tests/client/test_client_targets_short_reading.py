"""Answers whose text nobody wants are read a shorter way, to the same counts."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.reading.pieces import Pieces
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


def in_columns(arrivals):
    contents = [content for _, content in arrivals]
    ends = np.cumsum([len(content) for content in contents], dtype=np.uint64)
    return Pieces(np.array([at for at, _ in arrivals]), ends, b"".join(contents))


TEXTS = st.lists(st.text(max_size=3), min_size=1, max_size=12)


@given(TEXTS, st.integers(0, 14), st.lists(st.integers(0, 2000), max_size=3), st.booleans())
def test_columns_are_read_as_pairs_are(texts, usage, cuts, ids):
    choices = [{"text": text} | ({"token_ids": [7]} if ids else {}) for text in texts]
    arrivals = stream(choices, usage)
    for cut in cuts:  # here and there two events come in one read, or half of one
        at = cut % len(arrivals)
        time, content = arrivals[at]
        parts = [(time, content[:cut]), (time + 0.1, content[cut:])]
        arrivals[at : at + 1] = [part for part in parts if part[1]]
    for whole in (True, False):
        pairs = read_events(arrivals, whole=whole, text=False)
        columns = read_events(in_columns(arrivals), whole=whole, text=False)
        assert count_tokens(columns, list) == count_tokens(pairs, list)
        for name in ("finish", "prompt_tokens", "completion_tokens", "queue", "prefill", "failure"):
            assert getattr(columns, name) == getattr(pairs, name)


def test_a_plain_stream_is_read_in_columns(monkeypatch):
    arrivals = stream([{"text": f"t{n}"} for n in range(40)], 40)
    monkeypatch.setattr("client.targets.openai_answer._read_alike", None)
    answer = read_events(in_columns(arrivals), text=False)
    assert list(answer.singles) == [at for at, _ in arrivals[:40]]
