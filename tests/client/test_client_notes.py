"""What is said beside the figures, and when."""

from dataclasses import replace

import pytest

from client.results.arrivals import Arrivals
from client.results.notes import counted_by, notes
from client.results.records import CountedBy, Outcome, Record

PLAIN = Record(
    index=0,
    prompt_id="p",
    prompt_tokens=5,
    max_tokens=4,
    scheduled=0.0,
    sent=0.0,
    ended=1.0,
    arrivals=Arrivals.of([(0.5, 1), (0.6, 1), (0.7, 1), (0.8, 1)]),
    outcome=Outcome.COMPLETED,
    server_prompt_tokens=5,
    server_completion_tokens=4,
)


def test_nothing_out_of_the_ordinary_is_not_mentioned():
    assert notes([PLAIN, PLAIN], ignore_eos=True) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrivals": Arrivals.of([(0.5, 4)])}, "4.00 tokens a message"),
        ({"counted_by": CountedBy.TOKENIZER}, "text without token ids"),
        ({"max_tokens": 3}, "more tokens than were asked for"),
        ({"max_tokens": 5}, "fewer tokens than were asked for"),
        ({"server_prompt_tokens": 9}, "counted 9 prompt tokens"),
        ({"server_completion_tokens": 5}, "another number of tokens"),
    ],
)
def test_each_oddity_has_its_sentence_and_failures_have_none(change, words):
    (note,) = notes([replace(PLAIN, **change)], ignore_eos=True)
    assert words in note
    assert notes([replace(PLAIN, outcome=Outcome.FAILED, **change)], ignore_eos=True) == []


def test_stopping_early_is_ordinary_unless_end_of_sequence_was_to_be_ignored():
    assert notes([replace(PLAIN, max_tokens=5)], ignore_eos=False) == []


@pytest.mark.parametrize(
    ("sources", "word"),
    [
        ([CountedBy.TOKEN_IDS], "token_ids"),
        ([CountedBy.TOKENIZER, CountedBy.TOKENIZER], "tokenizer"),
        ([CountedBy.TOKEN_IDS, CountedBy.TOKENIZER], "mixed"),
        ([], None),
    ],
)
def test_where_the_counts_of_a_run_come_from(sources, word):
    assert counted_by([replace(PLAIN, counted_by=source) for source in sources]) == word
