"""From what arrived to what is reported: token counts and outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.results.records import (
    EMPTY,
    TRUNCATED,
    CountedBy,
    Outcome,
    build_records,
    count_tokens,
)
from client.targets.exchange import OK, TIMEOUT, Answer, Exchange, Piece
from client.workloads.prompt import Prompt

PROMPT = Prompt(id="p", text="hello", token_ids=(1, 2, 3), max_tokens=4)


def a_byte_each(text):
    return list(text.encode())


def built(status, pieces, finish=None, others=()):
    """The record of one exchange, beside others that answered with the given reasons."""
    exchange = Exchange(scheduled=10.0, sent=10.5)
    if status is not None:
        exchange.end(20.0, status, "detail")
    answers = [Answer(pieces, finish), *(Answer([Piece(11, [1], "a")], other) for other in others)]
    ended = Exchange(scheduled=10.0, sent=10.0, ended=12.0, status=OK)
    exchanges = [exchange, *(ended for _ in others)]
    return build_records([PROMPT] * len(answers), exchanges, answers, 10.0, a_byte_each)[0]


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=3), st.text(max_size=3))))
def test_ids_are_counted_and_empty_messages_are_not(messages):
    pieces = [Piece(float(at), ids, text) for at, (ids, text) in enumerate(messages)]
    arrivals, source = count_tokens(Answer(pieces), a_byte_each)
    if any(ids for ids, _ in messages):
        expected = [(float(at), len(ids)) for at, (ids, _) in enumerate(messages) if ids]
        assert (arrivals, source) == (expected, CountedBy.TOKEN_IDS)
    elif any(text for _, text in messages):
        assert source is CountedBy.TOKENIZER
    else:
        assert arrivals == []


@given(st.lists(st.text(max_size=5), max_size=6).filter(any), st.integers(0, 40))
def test_text_alone_is_tokenized_as_a_whole_and_laid_over_its_messages(texts, total):
    pieces = [Piece(float(at), [], text) for at, text in enumerate(texts)]
    arrivals, source = count_tokens(Answer(pieces), lambda text: [0] * total)
    assert source is CountedBy.TOKENIZER
    assert sum(count for _, count in arrivals) == max(total, 1)
    assert all(count > 0 for _, count in arrivals)
    # The first token comes with the first text.
    assert arrivals[0][0] == next(at for at, text in enumerate(texts) if text)


def test_times_count_from_the_start_of_the_run():
    record = built(OK, [Piece(11.25, [7], "a")])
    assert (record.scheduled, record.sent, record.ended) == (0.0, 0.5, 10.0)
    assert record.arrivals == ((1.25, 1),)


@pytest.mark.parametrize(
    ("status", "pieces", "finish", "others", "outcome", "cause"),
    [
        (OK, [Piece(11, [1], "a")], None, (), Outcome.COMPLETED, ""),
        (OK, [Piece(11, [1], "a")], "stop", ("length",), Outcome.COMPLETED, ""),
        (OK, [Piece(11, [1], "a")], None, ("length",), Outcome.FAILED, TRUNCATED),
        (OK, [], None, (), Outcome.FAILED, EMPTY),
        (OK, [Piece(11, [], "")], None, (), Outcome.FAILED, EMPTY),
        (TIMEOUT, [Piece(11, [1], "a")], None, (), Outcome.FAILED, TIMEOUT),
        ("RESOURCE_EXHAUSTED", [], None, (), Outcome.FAILED, "RESOURCE_EXHAUSTED"),
        (None, [Piece(11, [1], "a")], None, (), Outcome.UNFINISHED, ""),
    ],
)
def test_outcomes(status, pieces, finish, others, outcome, cause):
    record = built(status, pieces, finish, others)
    assert (record.outcome, record.cause) == (outcome, cause)


def test_a_request_that_was_never_due_was_not_sent():
    record = build_records([PROMPT], [Exchange()], [Answer([])], 0.0, a_byte_each)[0]
    assert record.outcome is Outcome.NOT_SENT
