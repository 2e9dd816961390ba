"""Bad bodies get a clear error in OpenAI's shape, and the server goes on serving."""

import json
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.http.unserved import IGNORED, NEUTRAL
from tests.api.http_rig import MODEL, Web, web
from tests.api.served import EOS, PATIENCE, VOCAB
from tests.scheduler.small_engine import SmallEngine, echo

MOST_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def server():
    engine = SmallEngine(vocab=VOCAB, eos_ids=frozenset({EOS}), choose=echo, cache_length=64)
    limits = {"max_prompt_length": 50, "max_tokens": 60, "max_choices": 6, "rolling": False}
    with web(engine, max_message_bytes=MOST_BYTES, **limits) as server:
        yield server


def assert_serves(server: Web) -> None:
    answer = server.ask("completions", prompt=[1, 2, 3], max_tokens=2, ignore_eos=True)
    assert answer.status == 200
    assert answer.json["usage"]["completion_tokens"] == 2


# (fields beside a good prompt, the field that is named, what is said)
BAD = [
    ({"prompt": None}, "prompt", "prompt is absent; give a text, a list of texts"),
    ({"prompt": ""}, "prompt", "prompt is empty; give at least one character"),
    ({"prompt": []}, "prompt", "prompt is an empty list"),
    ({"prompt": [[]]}, "prompt", "prompt is empty; give at least one token id"),
    ({"prompt": 5}, "prompt", "prompt is 5; it must be a text"),
    ({"prompt": {}}, "prompt", "it must be a text"),
    ({"prompt": [1, "a"]}, "prompt", "it must be a text"),
    ({"prompt": [True]}, "prompt", "it must be a text"),
    ({"prompt": [1.5]}, "prompt", "it must be a text"),
    ({"prompt": [[1], "a"]}, "prompt", "it must be a text"),
    ({"prompt": "\ud800"}, "prompt", "prompt cannot be encoded: the text has half a surrogate"),
    ({"prompt": [1, -1]}, None, "token id -1 at position 1 is not from 0 to 299"),
    ({"prompt": [10**30]}, None, "is not from 0 to 299"),
    ({"prompt": [1] * 51, "max_tokens": 1}, "prompt", "51 tokens; at most 50 are allowed"),
    ({"prompt": [1] * 30, "max_tokens": 40}, "prompt", "a cache of 64 less max_tokens 40"),
    ({"prompt": ["a"] * 4, "n": 2}, "n", "ask for 8 completions; at most 6 are allowed"),
    ({"prompt": ["a"] * 7}, "prompt", "ask for 7 completions"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be at least 1"),
    ({"max_tokens": 61}, "max_tokens", "max_tokens is 61; this server generates at most 60"),
    ({"max_tokens": "5"}, "max_tokens", 'max_tokens is "5"; it must be a whole number'),
    ({"max_tokens": 1.5}, "max_tokens", "max_tokens is 1.5; it must be a whole number"),
    ({"max_tokens": True}, "max_tokens", "max_tokens is true; it must be a whole number"),
    ({"n": 0}, "n", "n is 0; it must be at least 1"),
    ({"n": 10**20}, "n", "at most 6 are allowed"),
    ({"best_of": 3}, "best_of", "it must be left out or n, which is 1"),
    ({"temperature": -1}, "temperature", "temperature is -1.0; it must be finite and at least 0"),
    ({"temperature": "hot"}, "temperature", 'temperature is "hot"; it must be a number'),
    ({"temperature": 10**400}, "temperature", "it must be a finite number"),
    ({"top_p": 1.5}, "top_p", "top_p is 1.5; it must be from 0 to 1"),
    ({"top_k": -2}, "top_k", "top_k is -2; it must be at least 0"),
    ({"seed": 2**64}, "seed", "seed is 18446744073709551616; it must be from -2**63"),
    ({"stop": 5}, "stop", "stop is 5; it must be a string or a list of strings"),
    ({"stop": ["a", 5]}, "stop", "it must be a string or a list of strings"),
    ({"stop": ""}, "stop", "stop string 0 has 0 characters"),
    ({"stop": ["x"] * 17}, "stop", "stop has 17 strings; at most 16"),
    ({"logprobs": 2}, "logprobs", "logprobs is 2; it must be 0 or left out"),
    ({"logprobs": True}, "logprobs", "it must be 0 or left out"),
    ({"stream": "yes"}, "stream", 'stream is "yes"; it must be true or false'),
    ({"stream_options": {}}, "stream_options", "goes with stream true only"),
    ({"stream": True, "stream_options": 1}, "stream_options", "it must be an object"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "stream_options.x is unknown"),
    ({"ignore_eos": 1}, "ignore_eos", "ignore_eos is 1; it must be true or false"),
    ({"model": 3}, "model", "model is 3; it must be a string"),
    ({"echo": True}, "echo", "echo is true, which is unsupported here: leave it out or send false"),
    ({"suffix": "x"}, "suffix", "suffix is"),
    ({"stop_token_ids": [5]}, "stop_token_ids", "unsupported here"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported here"),
    ({"presence_penalty": 0.5}, "presence_penalty", "leave it out or send 0"),
    ({"frequency_penalty": False}, "frequency_penalty", "unsupported here"),
    ({"temprature": 0.5}, "temprature", '"temprature" is not a field this server knows; it reads'),
]
BAD_CHATS = [
    ({"messages": None}, "messages", "messages is absent"),
    ({"messages": []}, "messages", "messages is empty"),
    ({"messages": "hi"}, "messages", "it must be a list of messages"),
    ({"messages": ["hi"]}, "messages[0]", "an object with role and content"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role is null"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "a string or a list of text parts"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
        "it must be a text part",
    ),
    (
        {"messages": [{"role": "a", "content": "", "tool_calls": [{}]}]},
        "messages[0].tool_calls",
        '"tool_calls", which is unsupported',
    ),
    ({"logprobs": 1}, "logprobs", "it must be true or false"),
    ({"logprobs": True, "top_logprobs": 2}, "top_logprobs", "top_logprobs is 2; it must be 0"),
    ({"tools": [{"type": "function"}]}, "tools", "unsupported here"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported here"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens", "give one of them"),
    ({"max_completion_tokens": 61}, "max_completion_tokens", "max_completion_tokens is 61"),
    ({"prompt": "x"}, "prompt", '"prompt" is not a field'),
]


@pytest.mark.parametrize(("fields", "param", "says"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_completion_is_refused_with_a_reason(server, fields, param, says):
    answer = server.ask("completions", **{"model": MODEL, "prompt": "ab", "max_tokens": 3} | fields)
    assert answer.status == 400
    assert says in answer.error["message"]
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"
    assert_serves(server)


@pytest.mark.parametrize(("fields", "param", "says"), BAD_CHATS, ids=lambda value: str(value)[:40])
def test_a_bad_chat_is_refused_with_a_reason(server, fields, param, says):
    good = {"model": MODEL, "messages": [{"role": "user", "content": "ab"}]}
    answer = server.ask("chat/completions", **good | fields)
    assert answer.status == 400
    assert says in answer.error["message"]
    assert answer.error["param"] == param
    assert_serves(server)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe{}", "the body is not JSON"),
        (b"[1]", "the body is [1]; send a JSON object"),
        (b"null", "the body is null; send a JSON object"),
        (b'{"prompt": "a", "temperature": NaN}', "NaN is not a JSON number"),
        (b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (b"[" * 60_000, "the body is nested too deeply"),
    ],
)
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_bytes_that_are_no_request_are_refused(server, path, body, says):
    answer = server.send("POST", f"/v1/{path}", body)
    assert answer.status == 400
    assert says in answer.error["message"]
    assert_serves(server)


def test_a_body_that_is_too_large_is_refused(server):
    huge = json.dumps({"prompt": "x" * MOST_BYTES}).encode()
    for body in (huge, iter([huge])):  # http.client sends an iterator in chunks, without a length
        answer = server.send("POST", "/v1/completions", body)
        assert answer.status == 413
        assert f"larger than {MOST_BYTES} bytes" in answer.error["message"]
    assert_serves(server)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/models/other", 404),
    ],
)
def test_what_is_not_served_is_an_error_of_openais_shape(server, method, path, status):
    answer = server.send(method, path)
    assert answer.status == status
    assert answer.error["message"]
    if status == 405:
        assert answer.headers["Allow"] in answer.error["message"]


def test_what_changes_nothing_is_taken(server):
    neutral = {name: values[0] for name, values in NEUTRAL.items() if values}
    ignored = {name: {"any": "thing"} for name in IGNORED}
    plain = server.ask("completions", prompt="ab", max_tokens=4, temperature=0)
    answer = server.ask(
        "completions", **neutral, **ignored, prompt="ab", max_tokens=4, temperature=0, best_of=1
    )
    assert answer.status == 200, answer.body
    assert answer.json["choices"] == plain.json["choices"]


def test_null_is_as_good_as_absent(server):
    absent = dict.fromkeys(("max_tokens", "n", "stop", "stream", "stream_options", "top_p"))
    answer = server.ask("completions", prompt=[1], **absent, logit_bias=None, echo=None)
    assert answer.json["usage"]["completion_tokens"] == 16


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("prompt", "messages", "max_tokens", "max_completion_tokens", "n", "stop", "seed"),
        *("stream", "stream_options", "temperature", "top_p", "top_k", "logprobs", "top_logprobs"),
        *("ignore_eos", "return_token_ids", "model", "best_of", "tools", "logit_bias"),
    ]
)
message = st.fixed_dictionaries({"role": st.sampled_from(["user", "a"]), "content": anything})
bodies = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(max_size=60) | st.lists(st.integers(0, 99), max_size=20) | anything,
        "messages": st.lists(message, max_size=3) | anything,
        "max_tokens": st.integers(1, 60) | anything,
        "n": st.integers(1, 3) | anything,
        "stop": st.text("ab", max_size=3) | anything,
        "stream": st.booleans(),
        "return_token_ids": st.booleans(),
        "temperature": st.floats(0, 2) | anything,
    },
)


@settings(max_examples=120, deadline=None)
@given(
    path=st.sampled_from(["completions", "chat/completions"]),
    body=bodies,
    more=st.dictionaries(names, anything, max_size=2),
)
def test_whatever_is_asked_is_served_or_refused(server, path, body, more):
    answer = server.send("POST", f"/v1/{path}", json.dumps(body | more).encode())
    assert answer.status in (200, 400, 404), answer.body
    if answer.status != 200:
        assert answer.error["message"]
    elif (body | more).get("stream"):
        assert answer.events[-1] == "[DONE]"
        assert all(json.loads(event)["choices"] for event in answer.events[:-2])
    else:
        reasons = {choice["finish_reason"] for choice in answer.json["choices"]}
        assert reasons <= {"stop", "length"}


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200))
def test_whatever_bytes_come_are_refused(server, body):
    assert server.send("POST", "/v1/completions", body).status == 400


def connect(server: Web) -> socket.socket:
    place = urlsplit(server.url)
    return socket.create_connection((place.hostname, place.port), PATIENCE)


def test_a_client_that_sends_half_a_body_is_not_waited_for(server):
    with connect(server) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert_serves(server)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"hello\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_turned_away_without_a_word_in_the_log(server, junk, caplog):
    with connect(server) as line:
        line.sendall(junk)
        assert b" 400 " in line.recv(100)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert_serves(server)
