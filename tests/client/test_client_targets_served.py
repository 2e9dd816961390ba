"""Every target against our own server, over one engine that echoes the prompt."""

import pytest
from target_rig import asking, prompt, run, summary

from client.errors import NotReadyError
from client.results.records import CountedBy
from client.targets.settings import TargetSettings
from server.api.credentials import load_certificate, load_keys
from tests.api.http_rig import CERTIFICATES, MODEL, web
from tests.api.served import BOS, EOS, VOCAB
from tests.scheduler.small_engine import SmallEngine, echo

CERTIFICATE, KEY = CERTIFICATES / "certificate.pem", CERTIFICATES / "key.pem"
# (kind, transport, loop)
TARGETS = [
    ("jetstream", "fast", "uvloop"),
    ("jetstream", "loop", "uvloop"),
    ("jetstream", "grpcio", "asyncio"),
    ("openai", "fast", "uvloop"),
    ("openai-chat", "fast", "asyncio"),
]
DONE = ("completed", "", "")


@pytest.fixture(params=TARGETS, ids=lambda each: "-".join(each[:2]))
def way(request):
    return request.param


@pytest.fixture(scope="module")
def server():
    with web() as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """With TLS and keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("right-key\n")
    with web(certificate=load_certificate(CERTIFICATE, KEY), keys=load_keys(path)) as server:
        yield server


def asked(way, server, prompts, **changes):
    kind, transport, loop = way
    place = server.url if kind != "jetstream" else server.thread.server.address
    usual = {
        "kind": kind, "transport": transport, "server": "127.0.0.1",
        "port": int(place.rsplit(":", 1)[1]), "connections": 3,
        "request_timeout": 20.0, "connect_timeout": 10.0,
    }  # fmt: skip
    return run(asking(TargetSettings(**usual | changes), prompts), loop)


def read_as(kind: str, text: str) -> list[int]:
    """What the model reads of a prompt; the server's chat template has no token before it."""
    return list(f"user:{text};".encode()) if kind == "openai-chat" else [BOS, *text.encode()]


def test_tokens_text_usage_and_timings(server, way):
    texts = ["a", "abc", "é漢😀", "z" * 30]
    records = asked(way, server, [prompt(text, 12) for text in texts])
    for text, record in zip(texts, records, strict=True):
        assert summary(record) == DONE
        read = read_as(way[0], text)
        expected = [read[index % len(read)] for index in range(12)]
        letters = bytes(each for each in expected if each < 256).decode("utf-8", "replace")
        assert record.text == letters
        assert record.tokens == 12
        assert (record.finish, record.server_completion_tokens) == ("length", 12)
        assert record.server_prompt_tokens == len(read)
        assert record.server_queue >= 0
        assert record.server_prefill > 0
        if way[0] == "jetstream":
            assert record.token_ids == tuple(expected)
        else:
            assert record.counted_by is CountedBy.USAGE


@pytest.mark.parametrize("kind", ["openai", "openai-chat"])
def test_token_ids_over_http_where_they_are_asked_for(server, kind):
    extra = {"extra_body": {"return_token_ids": True}}
    (record,) = asked((kind, "fast", "uvloop"), server, [prompt("abc", 9)], **extra)
    read = read_as(kind, "abc")
    assert record.token_ids == tuple(read[index % len(read)] for index in range(9))
    assert record.counted_by is CountedBy.TOKEN_IDS


def test_an_end_of_sequence_and_going_past_it(way):
    """Every third token ends the sequence."""

    def choose(read, index, sampling):
        return EOS if index % 3 == 2 else ord("a")

    engine = SmallEngine(vocab=VOCAB, eos_ids=frozenset({EOS}), choose=choose)
    with web(engine) as server:
        (early,) = asked(way, server, [prompt("x", 10)])
        (full,) = asked(way, server, [prompt("x", 10)], ignore_eos=True)
    assert (summary(early), early.tokens, early.finish) == (DONE, 3, "stop")
    assert (summary(full), full.tokens, full.finish) == (DONE, 10, "length")


def test_many_at_once_are_all_answered_in_order(server, way):
    records = asked(way, server, [prompt(f"{number:03}", 4) for number in range(200)])
    assert {summary(record) for record in records} == {DONE}
    said = [record.text for record in records]
    if way[0] != "openai-chat":  # whose template comes first
        assert said == [f"{number:03}" for number in range(200)]


def test_what_the_server_refuses_harms_no_other(way):
    engine = SmallEngine(vocab=VOCAB, eos_ids=frozenset({EOS}), choose=echo)
    with web(engine, max_prompt_length=40) as server:
        prompts = [prompt("p" * length, 4) for length in (5, 200, 5)]
        first, refused, last = asked(way, server, prompts)
    assert summary(first) == summary(last) == DONE
    cause = "INVALID_ARGUMENT" if way[0] == "jetstream" else "HTTP 400"
    assert summary(refused)[:2] == ("failed", cause)
    assert "40" in refused.detail


def test_an_engine_that_fails_in_the_middle(way):
    def choose(read, index, sampling):
        engine.break_decode = index >= 2
        return ord("a")

    engine = SmallEngine(vocab=VOCAB, choose=choose)
    with web(engine) as server:
        (record,) = asked(way, server, [prompt("x", 10)])
    cause = {"jetstream": "INTERNAL"}.get(way[0], "error in the stream")
    assert summary(record)[:2] == ("failed", cause)
    assert record.detail


def test_tls_and_keys(guarded, way):
    trusted = {"tls": True, "ca_file": CERTIFICATE}
    (record,) = asked(way, guarded, [prompt("ab", 4)], api_key="right-key", **trusted)
    assert summary(record) == DONE
    for wrong in ({"api_key": "wrong"}, {}):
        if way[0] == "jetstream":  # whose HealthCheck needs no key
            (record,) = asked(way, guarded, [prompt("ab", 4)], **trusted, **wrong)
            assert record.cause == "UNAUTHENTICATED"
            continue
        with pytest.raises(NotReadyError, match="wants a key"):
            asked(way, guarded, [], **trusted, **wrong)


def test_the_model_is_the_one_it_lists(server):
    (record,) = asked(("openai", "fast", "uvloop"), server, [prompt("a", 2)], model="other")
    assert record.cause == "HTTP 404"
    assert MODEL in record.detail or "other" in record.detail
