"""A connection of HTTP/1.1 and what is read from its answers, whatever bytes come."""

import asyncio
import json
import random
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from target_rig import prompt, run

from client.results.arrivals import Arrivals
from client.results.records import CountedBy, count_tokens
from client.targets.exchange import Answer, Exchange, Piece
from client.targets.http1 import HttpConnection
from client.targets.open import make_target
from client.targets.openai_answer import events, read_events, read_failure
from client.targets.settings import TargetSettings


def cut(data: bytes, places: list[int]) -> list[tuple[float, bytes]]:
    """The data in pieces; the time of each is its number."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    parts = [data[start:end] for start, end in pairwise(edges)]
    return [(float(at), part) for at, part in enumerate(parts)]


def time_of(arrivals: list[tuple[float, bytes]], end: int) -> float:
    """When the first `end` bytes were there."""
    so_far = 0
    for at, part in arrivals:
        so_far += len(part)
        if so_far >= end:
            return at
    raise AssertionError(end)


CUTS = st.lists(st.integers(0, 400), max_size=15)
LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
BETWEEN = st.sampled_from(["", ": a comment", "id: 7", "event: x", "retry: 3", "x-y: z", "data"])


@given(
    st.lists(st.tuples(BETWEEN, LINES.filter(bool)), max_size=8), st.sampled_from(["\n", "\r\n"]),
    CUTS,
)  # fmt: skip
def test_events_are_the_same_however_they_are_cut(sent, end, places):
    data, ends = f": hello{end}".encode(), []
    for between, text in sent:
        before = f"{between}{end}" if between else ""
        data += f"{before}data: {text}{end}{end}".encode()
        ends.append(len(data))
    arrivals = cut(data, places)
    found = list(events(arrivals))
    assert [text for _, text in found] == [text for _, text in sent]
    assert [time for time, _ in found] == [time_of(arrivals, end) for end in ends]


@given(LINES.filter(lambda text: text.strip() and ":" not in text and text != "data"), CUTS)
@example('{\n  "choices": [],\n\n  "usage": null\n}', [3, 9])
def test_a_body_that_is_no_event_stream_is_one_event_at_its_end(text, places):
    arrivals = cut(text.encode(), places)
    expected = [] if text in ("id", "event", "retry", "\ufeff") else [text.removeprefix("\ufeff")]
    assert [data for _, data in events(arrivals)] == expected
    assert all(time == arrivals[-1][0] for time, _ in events(arrivals))
    assert list(events(arrivals, whole=False)) == []


GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                b"data: ", b"data:", b"\n", b"\n\n", b"\r\n", b"{", b"}", b"[", b"]", b'"choices":',
                b'"text":', b'"usage":', b"null", b"7", b'"a"', b",", b":", b'"error"', b"[DONE]",
                b'{"choices":[{"text":"x"}]}', b'{"choices":[null]}', b'{"usage":{"a":1}}',
                b'{"choices":[{"delta":"x"}]}', b'{"choices":[{"token_ids":7}]}', b"\xff\xfe",
                b'{"timing":{"queue_seconds":NaN}}', b'{"usage":{"completion_tokens":-3}}',
            ]
        ),
        max_size=20,
    ).map(b"".join),
)  # fmt: skip


@given(GARBAGE, CUTS, st.booleans())
def test_garbage_is_read_without_a_fault_and_the_same_however_it_is_cut(garbage, places, whole):
    arrivals = cut(garbage, places)
    answer = read_events(arrivals, whole)
    same = read_events([(0.0, garbage)], whole)
    assert [(piece.text, piece.token_ids) for piece in answer.pieces] == [
        (piece.text, piece.token_ids) for piece in same.pieces
    ]
    assert (answer.failure, answer.finish, answer.queue) == (same.failure, same.finish, same.queue)
    times = [piece.time for piece in answer.pieces]
    assert times == sorted(times)
    assert isinstance(read_failure(arrivals), str)
    for count in (answer.prompt_tokens, answer.completion_tokens):
        assert count is None or count >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "text", "delta", "message", "usage", "error", "timing", "token_ids",
             "completion_tokens", "queue_seconds", "finish_reason", "content", "role", "object"]
        ),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
def test_no_json_makes_it_raise_and_what_it_finds_is_of_the_right_kind(sent):
    data = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in sent)
    answer = read_events([(0.0, data)])
    for piece in answer.pieces:
        assert isinstance(piece.text, str)
        assert all(type(each) is int for each in piece.token_ids)
    assert answer.finish is None or isinstance(answer.finish, str)
    assert answer.queue is None or 0 <= answer.queue < float("inf")
    for each in sent:
        assert isinstance(read_failure([(0.0, json.dumps(each).encode())]), str)


def test_reading_takes_a_time_in_proportion_to_its_length():
    """A megabyte, a byte at a time and without an end of a line: 10^12 steps if it were squared."""
    arrivals = [(0.0, b"x")] * 2**20
    ((_, line),) = events(arrivals)
    assert len(line) == 2**20


def test_one_thought_under_two_names_is_one():
    both = {"reasoning_content": "", "reasoning": "hm", "content": None}
    data = b"data: " + json.dumps({"choices": [{"delta": both}]}).encode() + b"\n\n"
    assert [piece.text for piece in read_events([(0.0, data)]).pieces] == ["hm"]


class Wire(asyncio.Transport):
    """What a connection writes to when nobody is there."""

    def write(self, data):
        pass

    def abort(self):
        pass


ANSWERS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n",
                b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"\r\n", b"5\r\nhello",
                b"0\r\n\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"hello", b"data: {}",
                b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.0 500 No\r\n\r\n", b"Content-Length: -1\r\n",
            ]
        ),
    ),
    max_size=10,
).map(b"".join)  # fmt: skip


@given(ANSWERS, st.data())
def test_no_bytes_make_a_connection_raise(answer, drawn):
    async def fed():
        told = []
        connection = HttpConnection(
            lambda _: told.append("made"), lambda _: told.append("free"),
            lambda _: told.append("gone"),
        )  # fmt: skip
        connection.connection_made(Wire())
        exchange = Exchange()
        ended = connection.send(b"", exchange)
        rest = answer
        while rest:
            size = drawn.draw(st.integers(1, len(rest)))
            connection.data_received(rest[:size])
            rest = rest[size:]
        connection.connection_lost(None)
        assert ended.done()
        assert exchange.status
        assert told in (["made", "gone"], ["made", "free", "gone"])

    asyncio.run(fed())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_whatever_comes_every_request_ends_and_nothing_escapes(loop):
    made = random.Random(5)
    parts = [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n", b"\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"5\r\nhello\r\n",
        b"0\r\n\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"hello", b"data: {}\n\n",
    ]  # fmt: skip

    async def serve(reader, writer):
        with suppress(ConnectionError, RuntimeError):  # what streams raise when the client has gone
            while await reader.read(65536):
                writer.write(b"HTTP/1.1 200 OK\r\n" if made.random() < 0.7 else b"")
                for _ in range(made.randint(0, 6)):
                    writer.write(made.choice(parts) if made.random() < 0.8 else made.randbytes(9))
                    await asyncio.sleep(0)
                if made.random() < 0.6:
                    break
        writer.close()

    async def many():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        target = make_target(
            TargetSettings(
                kind="openai", server="127.0.0.1", port=server.sockets[0].getsockname()[1],
                model="m", health_check=False, connections=2, request_timeout=0.1,
            )
        )  # fmt: skip
        await target.open(lambda reason: None)
        exchanges = []
        for _ in range(20):
            wave = [Exchange() for _ in range(20)]
            async with asyncio.TaskGroup() as group:
                for exchange in wave:
                    group.create_task(target.ask(target.build(prompt("x")), exchange))
            exchanges += wave
        for exchange in exchanges:
            target.read(exchange)
        await target.close()
        await asyncio.sleep(0.01)
        server.close()
        return exchanges, len(target._pool._all)

    exchanges, held = run(many(), loop, patience=60.0)
    assert all(each.status and each.sent <= each.ended for each in exchanges)
    assert {"OK", "malformed answer", "connection lost", "timeout"} <= {
        each.status for each in exchanges
    }
    assert held == 0


def test_a_count_below_nothing_is_no_count():
    answer = Answer([Piece(1.0, (), "ab")], completion_tokens=-3)
    assert count_tokens(answer, list) == (Arrivals.of([(1.0, 2)]), CountedBy.TOKENIZER)


CHOICES = st.fixed_dictionaries(
    {"index": st.just(0)},
    optional={
        "text": st.text(max_size=3),
        "delta": st.fixed_dictionaries(
            {}, optional={"content": st.text(max_size=3), "role": st.just("assistant")}
        ),
        "token_ids": st.lists(st.integers(0, 9), max_size=2),
        "finish_reason": st.sampled_from([None, "stop"]),
    },
)
EVENTS = st.one_of(
    st.builds(lambda text: {"choices": [{"text": text}]}, st.text(max_size=3)),
    st.builds(lambda text: {"choices": [{"delta": {"content": text}}]}, st.text(max_size=3)),
    st.builds(lambda choice: {"choices": [choice]}, CHOICES),
    st.builds(lambda count: {"choices": [], "usage": {"completion_tokens": count}}, st.just(3)),
    st.builds(lambda: {"error": {"message": "no"}}),
)


@given(st.lists(EVENTS, max_size=8), st.booleans(), st.booleans())
@example(
    [{"choices": [{"text": "a"}]}, *[{"choices": [{"delta": {"role": "r", "content": ""}}]}] * 2],
    False,
    False,
)
def test_the_short_way_through_events_that_are_alike_finds_the_same(sent, compact, escaped):
    separators = (",", ":") if compact else None
    wire = [
        b"data: %s\n\n" % json.dumps(each, separators=separators, ensure_ascii=escaped).encode()
        for each in sent
    ]
    short = read_events([(float(at), raw) for at, raw in enumerate(wire)])
    # Cut in two, no read is an event.
    halves = [(float(at), part) for at, raw in enumerate(wire) for part in (raw[:9], raw[9:])]
    assert read_events(halves) == short


def test_events_that_came_in_one_read_are_as_many_as_they_are():
    """Six tokens, two of them in one read, and an end without one: not six reads of one token."""
    said = [b'data: {"choices":[{"text":"%c"}]}\n\n' % letter for letter in b"abcdef"]
    ending = b'data: {"choices":[{"text":""}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"completion_tokens":6}}\n\n'
    reads = [*said[:3], said[3] + said[4], said[5], ending, usage]
    arrivals = [(float(at), raw) for at, raw in enumerate(reads)]
    expected = [(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1), (3.0, 1), (4.0, 1)]
    for text in (True, False):
        found, source = count_tokens(read_events(arrivals, text=text), list)
        assert [tuple(each) for each in found] == expected
        assert source is CountedBy.USAGE
