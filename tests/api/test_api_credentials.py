"""TLS and keys, with the clients that people use."""

import ssl

import grpc
import httpx
import openai
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import orchestrator_pb2 as pb
from protos import orchestrator_pb2_grpc as pb_grpc
from server.api.credentials import CredentialsError, load_certificate, load_keys
from tests.api.http_rig import CERTIFICATES, MODEL, web
from tests.api.served import PATIENCE, by_ids

CERTIFICATE, KEY = CERTIFICATES / "certificate.pem", CERTIFICATES / "key.pem"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("# clients\nfirst-key\n\n  second-key  \n")
    return load_keys(path)


@pytest.fixture(scope="module")
def server(keys):
    """With TLS and keys."""
    with web(certificate=load_certificate(CERTIFICATE, KEY), keys=keys) as server:
        yield server


@pytest.fixture
def channel(server):
    credentials = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
    with grpc.secure_channel(server.thread.server.address, credentials) as channel:
        yield channel


def bearing(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


def over_tls(server, key: str) -> openai.OpenAI:
    context = ssl.create_default_context(cafile=CERTIFICATE)
    return server.openai(key, http_client=httpx.Client(verify=context))


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_openais_client_with_tls_and_a_key(server, key):
    assert server.url.startswith("https://")
    client = over_tls(server, key)
    asked = {"model": MODEL, "prompt": "ab", "max_tokens": 4}
    assert client.completions.create(**asked).choices[0].text == "ab"
    chunks = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "ab"


@pytest.mark.parametrize("key", ["third-key", "first-ke", "first-key2", "clients"])
def test_a_wrong_key_is_401(server, key):
    with pytest.raises(openai.AuthenticationError, match="not one of this server's") as refused:
        over_tls(server, key).models.list()
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    "shown", [None, "", "first-key", "Basic first-key", "Bearer", "Bearer  ", "Bearer \xff"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/version", "/nothing"])
def test_everything_but_health_needs_a_key(server, path, shown):
    context = ssl.create_default_context(cafile=CERTIFICATE)
    headers = {} if shown is None else {"Authorization": shown}
    answer = server.send("GET", path, headers=headers, context=context)
    assert answer.status == 401
    assert answer.error["type"] == "authentication_error"
    assert server.send("GET", "/health", context=context).status == 200


def test_grpc_with_tls_and_a_key(channel):
    stub = pb_grpc.OrchestratorStub(channel)
    call = stub.Decode(by_ids([1, 2], 3), metadata=bearing("second-key"), timeout=PATIENCE)
    assert sum(len(m.stream_content.samples[0].token_ids) for m in call) == 3


@pytest.mark.parametrize(
    "metadata", [None, bearing("third-key"), [("authorization", "first-key")], bearing("")]
)
def test_grpc_without_the_right_key_is_unauthenticated(server, channel, metadata):
    value = server.thread.server.metrics.registry.get_sample_value
    label = {"cause": "unauthenticated"}
    before = value("loadstone_requests_refused_total", label) or 0
    stub = pb_grpc.OrchestratorStub(channel)
    with pytest.raises(grpc.RpcError, match="key") as refused:
        list(stub.Decode(by_ids([1, 2], 3), metadata=metadata, timeout=PATIENCE))
    assert refused.value.code() is UNAUTHENTICATED
    assert value("loadstone_requests_refused_total", label) == before + 1


def test_grpc_health_is_open(channel):
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    live = pb_grpc.OrchestratorStub(channel).HealthCheck(pb.HealthCheckRequest(), timeout=PATIENCE)
    assert live.is_live


def test_grpc_reflection_needs_a_key(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.ServerReflectionInfo(iter([ask]), timeout=PATIENCE))
    assert refused.value.code() is UNAUTHENTICATED
    call = stub.ServerReflectionInfo(iter([ask]), metadata=bearing("first-key"), timeout=PATIENCE)
    names = {service.name for service in next(iter(call)).list_services_response.service}
    assert "jetstream_proto.Orchestrator" in names


def test_a_client_without_tls_is_turned_away(server):
    place = server.thread.server.address
    with grpc.insecure_channel(place) as channel, pytest.raises(grpc.RpcError) as refused:
        list(pb_grpc.OrchestratorStub(channel).Decode(by_ids([1], 1), timeout=PATIENCE))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_keys_work_without_tls(keys):
    with web(keys=keys) as server:
        assert server.openai("first-key").models.list().data
        with pytest.raises(openai.AuthenticationError):
            server.openai("wrong").models.list()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key; write one a line"),
        ("# only\n\n# comments\n", "holds no key"),
        ("good\nsecret one\n", "line 2: one key a line"),
        ("schlüssel\n", "line 1: a key is printable ASCII"),
        ("tab\tbed\n", "line 1: a key is printable ASCII"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named_without_its_keys(tmp_path, text, says):
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(CredentialsError, match=r"keys\.txt") as refused:
        load_keys(path)
    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


def test_bytes_and_missing_files_are_named(tmp_path):
    path = tmp_path / "keys.bin"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialsError, match=r"keys\.bin is not UTF-8"):
        load_keys(path)
    with pytest.raises(CredentialsError, match=r"API key file .*absent cannot be read: No such"):
        load_keys(tmp_path / "absent")
    with pytest.raises(CredentialsError, match=r"TLS key .*absent cannot be read: No such"):
        load_certificate(CERTIFICATE, tmp_path / "absent")
    with pytest.raises(CredentialsError, match="cannot be read: Is a directory"):
        load_certificate(tmp_path, KEY)


def test_a_certificate_and_key_that_do_not_belong_together_are_refused(tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("hello")
    for pair in ((CERTIFICATE, CERTIFICATES / "other_key.pem"), (junk, KEY), (CERTIFICATE, junk)):
        with pytest.raises(CredentialsError, match="cannot be used together"):
            load_certificate(*pair)


def test_nothing_shows_a_key(keys):
    certificate = load_certificate(CERTIFICATE, KEY)
    assert "PRIVATE" not in repr(certificate)
    assert "first-key" not in repr(keys)
    assert repr(keys) == "Keys()"
