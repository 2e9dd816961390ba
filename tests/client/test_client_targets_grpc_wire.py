"""What gRPC puts on HTTP/2, read however it was cut."""

from itertools import pairwise

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.targets.grpc_wire import code_name, framed, messages, request_headers
from client.targets.http2_frames import frame, read_frames


def test_the_header_block_is_read_by_a_decoder_that_keeps_nothing():
    head = request_headers("host:1", "/a/B", True, 2.5, {"X-Route": "v"})
    strict = hpack.Decoder()
    strict.max_allowed_table_size = 0
    for _ in range(2):  # the same block for every call
        found = dict(strict.decode(head))
        assert found[":path"] == "/a/B"
        assert found[":scheme"] == "https"
        assert (found["grpc-timeout"], found["x-route"]) == ("2500m", "v")


@pytest.mark.parametrize(("seconds", "sent"), [(0.0001, "1m"), (1.0, "1000m"), (1e9, "99999999m")])
def test_a_deadline_fits_what_grpc_can_say(seconds, sent):
    assert dict(hpack.Decoder().decode(request_headers("h", "/", False, seconds, {})))[
        "grpc-timeout"
    ] == sent  # fmt: skip


def cut(data: bytes, places: list[int]) -> list[tuple[float, bytes]]:
    """The data in pieces; the time of each is its number."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [(float(at), data[start:end]) for at, (start, end) in enumerate(pairwise(edges))]


CUTS = st.lists(st.integers(0, 300), max_size=12)


@given(st.lists(st.binary(max_size=40), max_size=6), CUTS)
def test_messages_are_the_same_however_they_are_cut(sent, places):
    data = b"".join(framed(message) for message in sent)
    arrivals = cut(data, places)
    found, problem = messages(arrivals)
    assert [message for _, message in found] == sent
    assert problem == ""
    # Each at the time of its last byte: the first arrival that reaches its end.
    ends, reached = [], 0
    for message in sent:
        reached += 5 + len(message)
        ends.append(reached)
    sums, total = [], 0
    for at, content in arrivals:
        total += len(content)
        sums.append((at, total))
    assert [time for time, _ in found] == [
        next(at for at, so_far in sums if so_far >= end) for end in ends
    ]


@given(st.binary(max_size=300), CUTS)
def test_garbage_is_no_message_and_the_same_however_it_is_cut(garbage, places):
    whole, problem = messages([(0.0, garbage)])
    found, same = messages(cut(garbage, places))
    assert [message for _, message in found] == [message for _, message in whole]
    assert same == problem


@given(
    st.lists(
        st.tuples(
            st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1),
            st.binary(max_size=40),
        ),
        max_size=6,
    ),
    CUTS,
)  # fmt: skip
def test_frames_are_the_same_however_they_are_cut(sent, places):
    found, rest = [], b""
    for _, content in cut(b"".join(frame(*each) for each in sent), places):
        frames, at = read_frames(rest + content)
        found += frames
        rest = (rest + content)[at:]
    assert found == sent
    assert rest == b""


@given(st.binary(max_size=100))
def test_garbage_is_frames_or_a_reason_why_not(garbage):
    try:
        frames, at = read_frames(garbage)
    except ValueError as error:
        assert "a frame of" in str(error)
    else:
        assert sum(9 + len(payload) for *_, payload in frames) == at <= len(garbage)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0", "OK"),
        ("16", "UNAUTHENTICATED"),
        ("17", "UNKNOWN"),
        ("-1", "UNKNOWN"),
        ("²", "UNKNOWN"),
    ],
)
def test_names_of_statuses(text, name):
    assert code_name(text) == name
