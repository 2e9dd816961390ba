"""Bad requests get a clear answer, and the server goes on serving.

All tests here need only the `orchestrator` fixture, so they run against any server of ours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos import orchestrator_pb2 as pb
from tests.api.served import PATIENCE, Served, by_ids, by_text

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True)
class Need:
    """What a server must be like for a request to be wrong."""

    what: str
    met: Callable[[Served], bool]


ANY = Need("any server", lambda served: True)
TOKENIZER = Need("a server with a tokenizer", lambda served: served.has_tokenizer)
NO_TOKENIZER = Need("a server without a tokenizer", lambda served: not served.has_tokenizer)
FULL_CACHE = Need(
    "a server that does not roll and generates past its cache",
    lambda served: not served.rolling and served.cache_length - 29 <= served.max_tokens,
)


@dataclass(frozen=True)
class Bad:
    """A request that must be refused, and what the answer must say."""

    name: str
    make: Callable[[Served], pb.DecodeRequest]
    says: str
    needs: Need = ANY


def sampling(**fields) -> Callable[[Served], pb.DecodeRequest]:
    return lambda served: by_ids([1], sampling=pb.Sampling(**fields))


BAD = [
    Bad("absent content", lambda s: pb.DecodeRequest(max_tokens=3), "content is absent"),
    Bad("everything absent", lambda s: pb.DecodeRequest(), "content is absent"),
    Bad("no ids", lambda s: by_ids([]), "token_content is empty"),
    Bad("empty text", lambda s: by_text(""), "text_content is empty", TOKENIZER),
    Bad("text without tokenizer", lambda s: by_text("a"), "send token_content", NO_TOKENIZER),
    Bad("negative id", lambda s: by_ids([1, -1]), r"token id -1 at position 1 is not from 0 to"),
    Bad("id past vocab", lambda s: by_ids([s.vocab]), r"token id \d+ at position 0 is not from 0"),
    Bad("huge id", lambda s: by_ids([2**31 - 1]), r"token id 2147483647 at position 0"),
    Bad("no max_tokens", lambda s: by_ids([1], 0), "max_tokens is 0; it must be at least 1"),
    Bad("negative max_tokens", lambda s: by_ids([1], -5), "max_tokens is -5"),
    Bad(
        "max_tokens too large",
        lambda s: by_ids([1], s.max_tokens + 1),
        r"max_tokens is \d+; this server generates at most \d+",
    ),
    Bad("max_tokens huge", lambda s: by_ids([1], 2**31 - 1), "max_tokens is 2147483647"),
    Bad(
        "prompt too long",
        lambda s: by_ids([1] * (s.max_prompt_length + 1), 1, has_bos=True),
        r"the prompt has \d+ tokens; at most \d+ are allowed .* set truncate_prompt",
    ),
    Bad(
        "text too long",
        lambda s: by_text("word " * (s.max_prompt_length + 1), 1),
        r"the prompt has \d+ tokens; at most \d+ are allowed",
        TOKENIZER,
    ),
    Bad(
        "prompt and generation past the cache",
        lambda s: by_ids([1] * 30, s.cache_length - 29, has_bos=True),
        r"the prompt has 30 tokens; at most 29 are allowed \(a cache of",
        FULL_CACHE,
    ),
    Bad("two samples", lambda s: by_ids([1], num_samples=2), "num_samples is 2; .* unsupported"),
    Bad("negative samples", lambda s: by_ids([1], num_samples=-1), "num_samples is -1"),
    Bad("adapter", lambda s: by_ids([1], lora_adapter_id="x"), "adapters are unsupported"),
    Bad("cold", sampling(temperature=-0.5), "temperature is -0.5"),
    Bad("NaN temperature", sampling(temperature=float("nan")), "temperature is nan"),
    Bad("hot", sampling(temperature=float("inf")), "temperature is inf"),
    Bad("top_p past 1", sampling(top_p=1.5), "top_p is 1.5; it must be from 0 to 1"),
    Bad("negative top_p", sampling(top_p=-0.25), "top_p is -0.25"),
    Bad("NaN top_p", sampling(top_p=float("nan")), "top_p is nan"),
    Bad("negative top_k", sampling(top_k=-1), "top_k is -1; it must be at least 0"),
    Bad("many stops", lambda s: by_ids([1], stop=["x"] * 17), "17 strings", TOKENIZER),
    Bad("long stop", lambda s: by_ids([1], stop=["x" * 257]), "257 characters", TOKENIZER),
    Bad("empty stop", lambda s: by_ids([1], stop=["a", ""]), "string 1 has 0", TOKENIZER),
    Bad("stop without tokenizer", lambda s: by_ids([1], stop=["a"]), "stop is", NO_TOKENIZER),
]


def assert_serves(served: Served) -> None:
    answer = served.decode(by_ids([1, 2, 3], 2, ignore_eos=True))
    assert len(answer.ids) == 2
    assert served.stub.HealthCheck(pb.HealthCheckRequest(), timeout=PATIENCE).is_live


def assert_refused(served: Served, bad: Bad) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        served.decode(bad.make(served))
    assert refused.value.code() is INVALID
    assert re.search(bad.says, refused.value.details()), refused.value.details()
    assert_serves(served)


WITH_TOKENIZER = [bad for bad in BAD if bad.needs is not NO_TOKENIZER]


@pytest.mark.parametrize("bad", WITH_TOKENIZER, ids=lambda bad: bad.name)
def test_a_bad_request_is_refused_with_a_reason_and_the_server_lives(orchestrator, bad):
    if not bad.needs.met(orchestrator):
        pytest.skip(f"legal here: it is wrong only for {bad.needs.what}; other servers get it")
    assert_refused(orchestrator, bad)


def test_a_huge_message_is_refused_and_the_server_lives(orchestrator):
    huge = by_ids([1] * (orchestrator.max_message_bytes + 1))
    with pytest.raises(grpc.RpcError) as refused:
        orchestrator.decode(huge)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_serves(orchestrator)


@pytest.mark.parametrize("junk", [b"\xff\xff\xff", b"\x2a\x04\x0a\x02\xff\xfe", b"\x00" * 50])
def test_bytes_that_are_no_request_are_refused_and_the_server_lives(orchestrator, junk):
    raw = orchestrator.channel.unary_stream("/jetstream_proto.Orchestrator/Decode")
    with pytest.raises(grpc.RpcError) as refused:
        list(raw(junk, timeout=PATIENCE))
    assert refused.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    assert_serves(orchestrator)


ints = st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 70)
floats = st.floats(width=32) | st.sampled_from([0, 0.5, 1])
anything = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": ints,
        "text_content": st.builds(pb.DecodeRequest.TextContent, text=st.text(max_size=80)),
        "token_content": st.builds(
            pb.DecodeRequest.TokenContent, token_ids=st.lists(st.integers(0, 99) | ints)
        ),
        "num_samples": st.sampled_from([0, 1, 1, 2]),
        "has_bos": st.booleans(),
        "sampling": st.builds(
            pb.Sampling,
            temperature=floats,
            top_k=ints,
            top_p=floats,
            seed=st.integers(0, 2**64 - 1),
        ),
        "stop": st.lists(st.text(max_size=3), max_size=3),
        "logprobs": st.booleans(),
        "ignore_eos": st.booleans(),
        "truncate_prompt": st.booleans(),
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(anything)
def test_whatever_is_asked_is_served_or_refused(orchestrator, fields):
    try:
        answer = orchestrator.decode(pb.DecodeRequest(**fields))
    except grpc.RpcError as error:
        assert error.code() is INVALID, error.details()
    else:
        assert 1 <= len(answer.ids) == answer.usage.completion_tokens <= fields["max_tokens"]
        assert len(answer.logprobs) == (len(answer.ids) if fields.get("logprobs") else 0)


def test_unknown_fields_are_ignored(orchestrator):
    raw = orchestrator.channel.unary_stream(
        "/jetstream_proto.Orchestrator/Decode",
        response_deserializer=pb.DecodeResponse.FromString,
    )
    older = b"\x0a\x05cache" + b"\x18\x01"  # session_cache = 1 and priority = 3 of google-jetstream
    newer = b"\xa2\x3e\x03abc"  # field 1000
    message = older + by_ids([1, 2], 3, ignore_eos=True).SerializeToString() + newer
    ids = [
        token_id
        for answer in raw(message, timeout=PATIENCE)
        for token_id in answer.stream_content.samples[0].token_ids
    ]
    assert len(ids) == 3
