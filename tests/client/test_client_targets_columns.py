"""Answers over gRPC that nobody wants the text of are counted in columns, to the same records."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.reading.library import load_library
from client.reading.pieces import Pieces
from client.results.records import CountedBy, count_tokens
from client.targets.exchange import OK, Exchange
from client.targets.grpc_wire import framed
from client.targets.jetstream import JetStreamTarget
from client.targets.orchestrator import read_answer
from client.targets.settings import TargetSettings
from native.build import CannotBuildError
from protos import orchestrator_pb2 as pb

try:
    load_library(None)
except CannotBuildError as error:
    pytest.skip(f"no reader: {error}", allow_module_level=True)

TARGET = JetStreamTarget(TargetSettings())
Content = pb.DecodeResponse.StreamContent


def message(*samples: Content.Sample, **more) -> bytes:
    whole = pb.DecodeResponse(stream_content=Content(samples=samples), **more)
    return framed(whole.SerializeToString())


def token(text: str, ids: list[int], finish: int = 0) -> bytes:
    return message(Content.Sample(text=text, token_ids=ids, finish_reason=finish))


def in_columns(contents: list[bytes]) -> Pieces:
    ends = np.cumsum([len(content) for content in contents], dtype=np.uint64)
    return Pieces(np.arange(len(contents)) / 4, ends.astype(np.uint64), b"".join(contents))


def both(contents: list[bytes]):
    """The answer by columns, and the same read message by message."""
    pairs = [(at / 4, content) for at, content in enumerate(contents)]
    kept = Exchange(status=OK, pieces=in_columns(contents))
    return TARGET.read(kept, text=False), TARGET.read(Exchange(status=OK, arrivals=pairs))


def assert_same(contents: list[bytes]) -> None:
    columns, plain = both(contents)
    assert count_tokens(columns, list) == count_tokens(plain, list)
    for name in ("finish", "prompt_tokens", "completion_tokens", "queue", "prefill", "failure"):
        assert getattr(columns, name) == getattr(plain, name)


LAST = framed(
    pb.DecodeResponse(
        stream_content=Content(samples=[Content.Sample(text="e", token_ids=[7], finish_reason=2)]),
        usage=pb.Usage(prompt_tokens=3, completion_tokens=9),
        timing=pb.Timing(queue_seconds=0.25, prefill_seconds=0.5),
    ).SerializeToString()
)
FIRST = framed(
    pb.DecodeResponse(initial_content=pb.DecodeResponse.InitialContent()).SerializeToString()
)
IDS = st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 50_000), max_size=4)
TOKENS = st.builds(token, st.text(max_size=20), IDS)
RAW = st.binary(max_size=12)  # in place of a text, a number, a sample
BROKEN = st.one_of(
    RAW.map(lambda raw: framed(b"\x1a" + bytes([len(raw) + 2, 0x0A, len(raw)]) + raw)),
    RAW.map(lambda text: _sample(b"\x0a" + bytes([len(text)]) + text + b"\x12\x01\x07")),
    RAW.map(lambda ids: _sample(b"\x0a\x01x\x12" + bytes([len(ids)]) + ids)),
    st.just(token("x" * 200, [1])),
    st.just(token("x", list(range(200)))),
    st.just(message(Content.Sample(text="a", token_ids=[1]), Content.Sample(token_ids=[2, 3]))),
    st.just(message(Content.Sample(text="a", token_ids=[1], logprobs=[0.5]))),
    st.builds(token, st.just("a"), st.just([1]), st.integers(0, 3)),
    RAW, RAW.map(framed), st.just(b"\1" + token("a", [1])[1:]), st.just(FIRST), st.just(LAST),
)  # fmt: skip


def _sample(inside: bytes) -> bytes:
    return framed(b"\x1a" + bytes([len(inside) + 2, 0x0A, len(inside)]) + inside)


@settings(max_examples=400)
@given(st.lists(st.one_of(TOKENS, TOKENS, TOKENS, BROKEN), max_size=10),
       st.lists(st.integers(0, 500), max_size=3))  # fmt: skip
@example([_sample(b"\x0a\x02\xc3\x28\x12\x01\x07")], [])  # no UTF-8
@example([_sample(b"\x0a\x03\xed\xa0\x80\x12\x01\x07")], [])  # half a surrogate pair
@example([_sample(b"\x0a\x02\xc0\x80\x12\x01\x07")], [])  # longer than need be
@example([_sample(b"\x12\x02\x07\x80")], [])  # a number without an end
@example([_sample(b"\x12\x0b" + b"\x80" * 10 + b"\x01")], [])  # longer than any
@example([FIRST, token("a", [1]), token("\U0001f600", [2, 300_000]), LAST], [])
def test_columns_are_read_as_messages_are(contents, cuts):
    for place in cuts:  # here and there half a message comes at a time, or two at once
        if not contents:
            break
        at = place % len(contents)
        parts = [contents[at][:place], contents[at][place:]]
        contents[at : at + 1] = [part for part in parts if part]
        if place % 3 == 0 and at + 1 < len(contents):
            contents[at : at + 2] = [contents[at] + contents[at + 1]]
    assert_same([content for content in contents if content])


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_a_plain_stream_makes_no_object_for_a_token(count, monkeypatch):
    monkeypatch.setattr("client.targets.jetstream.read_answer", None)
    contents = [FIRST, *(token(f" t{n}", [n, n][: 1 + n % 2]) for n in range(count)), LAST]
    exchange = Exchange(status=OK, pieces=in_columns(contents))
    answer = TARGET.read(exchange, text=False)
    arrivals, counted_by = count_tokens(answer, list)
    assert counted_by is CountedBy.TOKEN_IDS
    assert answer.pieces == ()
    expected = [(1 + n) / 4 for n in range(count)], [1 + n % 2 for n in range(count)]
    assert arrivals.times.tolist() == [*expected[0], (count + 1) / 4]
    assert arrivals.counts.tolist() == [*expected[1], 1]
    assert (answer.finish, answer.completion_tokens, answer.queue) == ("length", 9, 0.25)


def test_text_without_ids_is_counted_as_ever():
    contents = [token("ab", []) for _ in range(30)]
    assert_same([*contents, LAST])
    columns, _ = both(contents)
    assert columns.by_ids is None
    assert (
        columns.pieces == read_answer([(n / 4, raw[5:]) for n, raw in enumerate(contents)]).pieces
    )
