"""`python -m server` with HTTP, TLS and keys, on a real engine, for OpenAI's client."""

import json
import ssl

import grpc
import httpx
import openai
import pytest

from server.models.spec import ModelSpec
from server.weights.safetensors import SafetensorsSource
from tests.api.http_rig import CERTIFICATES
from tests.api.served import by_ids
from tests.server.running import CACHE_LENGTH, SLOTS, launch, make_checkpoint, running

CERTIFICATE, KEY = CERTIFICATES / "certificate.pem", CERTIFICATES / "key.pem"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
SECRET = "a-key-for-tests"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("http") / "llama")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def spec(checkpoint) -> ModelSpec:
    return SafetensorsSource(checkpoint).spec


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(f"# one key\n{SECRET}\n")
    options = ["--http-port", "0", "--tls-cert", str(CERTIFICATE), "--tls-key", str(KEY)]
    options += ["--api-key-file", str(folder / "keys"), "--served-model-name", "org/tiny"]
    credentials = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
    with running(folder, checkpoint, *options, credentials=credentials) as server:
        yield server
        assert SECRET not in (folder / "log").read_text()
        assert f"https://127.0.0.1:{server.ready['http_port']}/v1" in (folder / "log").read_text()


@pytest.fixture(scope="module")
def client(server):
    tls = httpx.Client(verify=ssl.create_default_context(cafile=CERTIFICATE))
    url = f"https://127.0.0.1:{server.ready['http_port']}/v1"
    return openai.OpenAI(base_url=url, api_key=SECRET, http_client=tls, max_retries=0, timeout=60)


def test_both_wires_give_the_same_greedy_tokens(server, client):
    asked = {"model": "org/tiny", "prompt": [4, 5, 6], "max_tokens": 12, "temperature": 0}
    extra = {"return_token_ids": True, "ignore_eos": True}
    whole = client.completions.create(**asked, logprobs=0, extra_body=extra).choices[0]
    assert all(logprob < 0 for logprob in whole.logprobs.token_logprobs)
    chunks = client.completions.create(**asked, stream=True, extra_body=extra)
    streamed = [token_id for chunk in chunks for token_id in chunk.choices[0].token_ids]
    request = by_ids([4, 5, 6], 12, has_bos=True, ignore_eos=True)
    call = server.served.stub.Decode(
        request, metadata=[("authorization", f"Bearer {SECRET}")], timeout=60
    )
    ids = [t for m in call for s in m.stream_content.samples for t in s.token_ids]
    assert whole.token_ids == streamed == ids
    assert len(ids) == 12


def test_a_conversation_is_answered(client):
    messages = [{"role": "user", "content": "The quick brown fox"}]
    answer = client.chat.completions.create(
        model="org/tiny", messages=messages, max_completion_tokens=8, n=2, seed=3
    )
    assert len(answer.choices) == 2
    rendered = "<user>The quick brown fox"
    same = client.completions.create(model="org/tiny", prompt=rendered, max_tokens=1)
    assert answer.usage.prompt_tokens == same.usage.prompt_tokens
    assert 2 <= answer.usage.completion_tokens <= 16


def test_a_call_without_a_key_is_refused(server):
    with pytest.raises(grpc.RpcError) as refused:
        server.served.decode(by_ids([1], 1))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_ready_file_has_the_plan(server, spec):
    plan = server.ready["plan"]
    values = 2 * spec.layers * spec.kv_heads * spec.head_dim
    assert plan == {
        "model": "llama",
        "device_kind": "cpu",
        "devices": 1,
        "slots": SLOTS,
        "cache_length": CACHE_LENGTH,
        "parameters": spec.parameters,
        "weight_bytes": plan["weight_bytes"],
        # A float32 table of embeddings is looked up, not read.
        "step_weight_bytes": plan["weight_bytes"] - 4 * spec.vocab * spec.hidden,
        "cache_bytes_per_position": 4 * values,
    }
    assert plan["weight_bytes"] >= 4 * spec.parameters


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-cert", str(CERTIFICATE)], "--tls-cert and --tls-key go together"),
        (["--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE)], "used together"),
        (["--api-key-file", "absent"], "API key file absent cannot be read"),
        (["--http-port", "70000"], "http_port is 70000; a port is 0 (any) to 65535"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_model_is_loaded(checkpoint, options, says):
    done = launch("--model", str(checkpoint), *options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert "weights:" not in done.stderr
