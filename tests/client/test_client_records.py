"""From what arrived to what is reported: token counts and outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.load.health import WorkerHealth
from client.load.share import ShareResult
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

WELL = WorkerHealth(1.0, 0.1, 0.0, 0.0, 0.0)
PROMPT = Prompt(id="p", text="hello", token_ids=(1, 2, 3), max_tokens=4)


def a_byte_each(text):
    return list(text.encode())


def built(status, pieces, finish=None, others=()):
    """The record of one exchange, beside others that answered with the given reasons."""
    exchange = Exchange(scheduled=0.0, sent=0.5)
    if status is not None:
        exchange.end(10.0, status, "detail")
    answers = [Answer(pieces, finish), *(Answer([Piece(1, [1], "a")], other) for other in others)]
    ended = Exchange(scheduled=0.0, sent=0.0, ended=2.0, status=OK)
    return built_from([exchange, *(ended for _ in others)], answers)[0]


def built_from(exchanges, answers):
    """Records of what two workers brought, the second of them the first request."""
    order = list(range(len(answers)))
    results = [
        ShareResult(
            part, [exchanges[i] for i in part], [answers[i] for i in part], 2.0, False, WELL
        )
        for part in (order[1:], order[:1])
    ]
    return build_records([PROMPT] * len(answers), results, a_byte_each)


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=3), st.text(max_size=3))))
def test_ids_are_counted_and_empty_messages_are_not(messages):
    pieces = [Piece(float(at), ids, text) for at, (ids, text) in enumerate(messages)]
    arrivals, source = count_tokens(Answer(pieces), a_byte_each)
    if any(ids for ids, _ in messages):
        expected = [(float(at), len(ids)) for at, (ids, _) in enumerate(messages) if ids]
        assert (list(arrivals), source) == (expected, CountedBy.TOKEN_IDS)
    elif any(text for _, text in messages):
        assert source is CountedBy.TOKENIZER
    else:
        assert list(arrivals) == []


@given(st.lists(st.text(max_size=5), max_size=6).filter(any), st.integers(0, 40))
def test_text_alone_is_tokenized_as_a_whole_and_laid_over_its_messages(texts, total):
    pieces = [Piece(float(at), [], text) for at, text in enumerate(texts)]
    arrivals, source = count_tokens(Answer(pieces), lambda text: [0] * total)
    assert source is CountedBy.TOKENIZER
    assert sum(count for _, count in arrivals) == max(total, 1)
    assert all(count > 0 for _, count in arrivals)
    # The first token comes with the first text.
    assert arrivals.times[0] == next(at for at, text in enumerate(texts) if text)


def test_records_are_in_the_order_of_the_requests_whoever_sent_them():
    exchanges = [
        Exchange(scheduled=float(n), sent=float(n), ended=9.0, status=OK) for n in range(3)
    ]
    answers = [Answer([Piece(n + 0.5, [n], "a")]) for n in range(3)]
    records = built_from(exchanges, answers)
    assert [record.index for record in records] == [0, 1, 2]
    assert [record.sent for record in records] == [0.0, 1.0, 2.0]
    assert [tuple(record.arrivals) for record in records] == [((0.5, 1),), ((1.5, 1),), ((2.5, 1),)]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=6), st.integers(1, 40))
def test_the_servers_own_count_is_kept_and_laid_over_the_text(texts, said):
    pieces = [Piece(float(at), [], text) for at, text in enumerate(texts)]
    arrivals, source = count_tokens(Answer(pieces, completion_tokens=said), a_byte_each)
    if not any(texts) and len(texts) != said:
        assert list(arrivals) == []
        return
    assert source is CountedBy.USAGE
    assert sum(count for _, count in arrivals) == said
    if len(texts) == said:  # also a token that is half a character has its message
        assert list(arrivals) == [(float(at), 1) for at in range(said)]


def test_what_a_stream_says_of_its_failure_is_the_cause():
    failed = Answer([Piece(1, [1], "a")], "stop", failure=("error in the stream", "out of memory"))
    ended = Exchange(scheduled=0.0, sent=0.0, ended=2.0, status=OK)
    (record,) = built_from([ended], [failed])
    assert (record.outcome, record.cause) == (Outcome.FAILED, "error in the stream")
    assert record.detail == "out of memory"


@pytest.mark.parametrize(
    ("status", "pieces", "finish", "others", "outcome", "cause"),
    [
        (OK, [Piece(1, [1], "a")], None, (), Outcome.COMPLETED, ""),
        (OK, [Piece(1, [1], "a")], "stop", ("length",), Outcome.COMPLETED, ""),
        (OK, [Piece(1, [1], "a")], None, ("length",), Outcome.FAILED, TRUNCATED),
        (OK, [], None, (), Outcome.FAILED, EMPTY),
        (OK, [Piece(1, [], "")], None, (), Outcome.FAILED, EMPTY),
        (TIMEOUT, [Piece(1, [1], "a")], None, (), Outcome.FAILED, TIMEOUT),
        ("RESOURCE_EXHAUSTED", [], None, (), Outcome.FAILED, "RESOURCE_EXHAUSTED"),
        (None, [Piece(1, [1], "a")], None, (), Outcome.UNFINISHED, ""),
    ],
)
def test_outcomes(status, pieces, finish, others, outcome, cause):
    record = built(status, pieces, finish, others)
    assert (record.outcome, record.cause) == (outcome, cause)


def test_a_request_that_was_never_due_was_not_sent():
    (record,) = built_from([Exchange()], [Answer([])])
    assert record.outcome is Outcome.NOT_SENT
