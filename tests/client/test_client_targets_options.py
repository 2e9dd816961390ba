"""The command line of targets: what is taken, what is refused, and that keys are never shown."""

import json
from dataclasses import asdict

import pytest
from client_rig import HTTP_SERVER, conversation, serving

from client.errors import UsageError
from client.options import parse_options
from client.targets.settings import TargetSettings
from native.build import CannotBuildError


def target(*arguments: str) -> TargetSettings:
    return parse_options(["--dataset", "synthetic", *arguments]).target


def refused(capsys, *arguments: str) -> str:
    """The one line of an error."""
    with pytest.raises(SystemExit) as exit_:
        target(*arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("backend", "kind", "port"),
    [
        ("jetstream", "jetstream", 9000),
        ("openai", "openai", 8000),
        ("openai-chat", "openai-chat", 8000),
        ("vllm", "openai", 8000),
        ("vllm-chat", "openai-chat", 8000),
        ("sglang", "openai", 8000),
        ("sglang-oai", "openai", 8000),
        ("sglang-oai-chat", "openai-chat", 8000),
        ("openai-comp", "openai", 8000),
    ],
)
def test_backends_and_what_others_call_them(backend, kind, port):
    found = target("--backend", backend)
    assert (found.kind, found.port, found.server) == (kind, port, "0.0.0.0")


@pytest.mark.parametrize(
    ("url", "server", "port", "tls", "path"),
    [
        ("http://host:8001", "host", 8001, False, ""),
        ("http://host", "host", 80, False, ""),
        ("https://host", "host", 443, True, ""),
        ("https://host:1/", "host", 1, True, ""),
        ("HTTPS://Host:1", "host", 1, True, ""),
        ("host:8001", "host", 8001, False, ""),
        ("[::1]:8001", "::1", 8001, False, ""),
        ("http://[::1]", "::1", 80, False, ""),
        ("http://host/v1", "host", 80, False, "/v1/completions"),
        ("http://host/v1/", "host", 80, False, "/v1/completions"),
        ("http://host/a/v1", "host", 80, False, "/a/v1/completions"),
        ("http://host/a", "host", 80, False, "/a/v1/completions"),
        ("http://host/a/v1/completions", "host", 80, False, "/a/v1/completions"),
    ],
)
def test_forms_of_a_base_url(url, server, port, tls, path):
    found = target("--backend", "openai", "--base-url", url)
    assert (found.server, found.port, found.tls, found.path) == (server, port, tls, path)


def test_an_endpoint_goes_behind_a_base_url():
    url = ("--backend", "openai-chat", "--base-url", "http://host/a", "--endpoint", "/say")
    assert target(*url).path == "/a/say"
    assert target("--backend", "openai-chat", "--base-url", "http://h/v1").path == (
        "/v1/chat/completions"
    )
    assert target("--base-url", "host").port == 9000  # gRPC has no port of its own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "vlm"], "one of jetstream, openai"),
        (["--base-url", "ftp://host"], "http(s)://host:port"),
        (["--base-url", "http://"], "http(s)://host:port"),
        (["--base-url", ""], "http(s)://host:port"),
        (["--base-url", "http://host:0"], "port: 1 to 65535"),
        (["--base-url", "http://host:65536"], "--base-url"),
        (["--base-url", "http://host:x"], "--base-url"),
        (["--base-url", "http://[::1"], "--base-url"),
        (["--base-url", "http://[nonsense]:80"], "--base-url"),
        (["--base-url", "http://host", "--port", "80"], "--port both say where"),
        (["--base-url", "http://host", "--server", "other"], "--server both say where"),
        (["--base-url", "http://host", "--tls"], "https://"),
        (["--base-url", "http://host/v1"], "gRPC has no path"),
        (["--backend", "openai", "--base-url", "http://host/a b"], "path: starts with /"),
        (["--server", "http://host"], "server: a host name"),
        (["--server", "host name"], "server: a host name"),
        (["--server", "a..b"], "server: a host name"),
        (["--server", "x" * 64 + ".org"], "server: a host name"),
        (["--server", "host\r\nX: y"], "server: a host name"),
        (["--backend", "openai", "--endpoint", "v1/completions"], "path: starts with /"),
        (["--backend", "openai", "--endpoint", "/a b"], "path: starts with /"),
        (["--backend", "openai", "--endpoint", "/a\r\nX: y"], "path: starts with /"),
        (["--endpoint", "/v1"], "--endpoint is for --backend openai"),
        (["--extra-body", "{}"], "--extra-body is for --backend openai"),
        (["--engine", "--model tiny"], "--engine is for --backend in-process"),
        (["--backend", "in-process", "--base-url", "host"], "--base-url is for"),
        (["--backend", "openai-chat", "--send", "tokens"], "--send tokens"),
        (["--backend", "openai", "--transport", "grpcio"], "--transport grpcio is not for"),
        (["--backend", "openai", "--extra-body", "{"], "--extra-body: not JSON"),
        (["--backend", "openai", "--extra-body", "[1]"], "a JSON object; got '[1]'"),
        (["--backend", "openai", "--extra-body", '{"a": NaN}'], "JSON has no NaN"),
        (["--backend", "openai", "--extra-body", "[" * 99_999], "--extra-body: not JSON"),
        (["--header", "nothing"], "--header: NAME=VALUE"),
        (["--header", "=value"], "--header: NAME=VALUE"),
        (["--header", "na me=value"], "--header: NAME=VALUE"),
        (["--header", "näme=value"], "header 1: its name"),
        (["--header", "name=a\nb"], "header name: a value of one line"),
        (["--header", "name=ä"], "header name: a value of one line in ASCII"),
        (["--header", "Content-Length=3"], "header Content-Length: the client writes"),
        (["--header", "grpc-timeout=3"], "header grpc-timeout: the client writes"),
        (["--header", "te=x"], "header te: the client writes"),
        (["--header", "a-bin=x"], "header a-bin: the client writes"),
        (["--header", "long=" + "x" * 9000], "at most 8,000 letters"),
        (["--ca-file", "/absent"], "--ca-file is for --tls"),
        (["--api-key-env", "ABSENT_KEY"], "the environment has no ABSENT_KEY"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def no_library(cache_dir, compiler=None):
    raise CannotBuildError("no C compiler")


@pytest.mark.parametrize("backend", ["jetstream", "openai"])
def test_the_loop_reads_where_a_thread_cannot(monkeypatch, backend):
    options = ("--backend", backend)
    assert target(*options, "--tls").transport == "loop"
    assert target(*options, "--transport", "loop").transport == "loop"
    monkeypatch.setattr("client.targets.reading.load_library", no_library)
    assert target(*options).transport == "loop"


def test_a_machine_other_than_the_one_that_chose_says_that_the_loop_reads(monkeypatch):
    from client.targets.reading import open_reading

    monkeypatch.setattr("client.targets.reading.load_library", no_library)
    reading, reason = open_reading(TargetSettings(transport="fast"))
    assert reading is None
    assert reason == "Python's event loop reads, not a thread in C: no C compiler"
    assert open_reading(TargetSettings(transport="grpcio")) == (None, "")


def test_a_file_that_holds_no_certificate_is_bad_input(tmp_path):
    from client.targets.open import make_target

    (tmp_path / "empty.pem").write_text("nothing")
    for kind, transport in (("openai", "fast"), ("jetstream", "fast"), ("jetstream", "grpcio")):
        for path in (tmp_path / "empty.pem", tmp_path / "absent.pem"):
            settings = TargetSettings(kind=kind, transport=transport, tls=True, ca_file=path)
            with pytest.raises(UsageError, match=r"cannot read the certificates in .*\.pem"):
                make_target(settings)


def test_headers_in_both_manners():
    given = ("--header", "X-A=1=2", "--header", "X-B: a, b", "--header", "x-c=")
    assert target(*given).headers == {"X-A": "1=2", "X-B": "a, b", "x-c": ""}
    assert target("--backend", "openai", "--header", "Host=other").headers == {"Host": "other"}


SECRET = "sk-s3cret"


@pytest.mark.parametrize("value", [SECRET, f" {SECRET}\n"])
def test_a_key_from_the_environment_is_in_no_repr(monkeypatch, value):
    monkeypatch.setenv("SOME_KEY", value)
    options = parse_options(
        ["--dataset", "synthetic", "--api-key-env", "SOME_KEY", "--header", f"X-Key={SECRET}"]
    )
    assert options.target.api_key == SECRET
    assert SECRET not in repr(options)
    assert SECRET not in str(options.target)
    assert asdict(options)["target"]["api_key"] == SECRET  # so the record has to leave it out


@pytest.mark.parametrize("value", [f"{SECRET} x", f"{SECRET}\nX: y", f"{SECRET}é", SECRET * 999])
def test_a_key_that_cannot_be_sent_is_refused_unseen(monkeypatch, capsys, value):
    monkeypatch.setenv("SOME_KEY", value)
    line = refused(capsys, "--api-key-env", "SOME_KEY")
    assert "API key" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--header", SECRET],
        ["--header", f"Authorization Bearer {SECRET}="],
        ["--header", f"Authorization=Bearer {SECRET}\n"  "x"],
        ["--header", f"{SECRET}é=x"],
        ["--base-url", f"http://user:{SECRET}@host:x"],
        ["--base-url", f"http://host?key={SECRET}"],
        ["--base-url", f"host#{SECRET}"],
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_place_is_refused_unseen(capsys, arguments):
    assert "s3cret" not in refused(capsys, *arguments)


def test_a_key_is_in_nothing_that_a_run_leaves(benchmark, tmp_path, monkeypatch):
    from client_rig import ENVIRONMENT

    monkeypatch.setitem(ENVIRONMENT, "SOME_KEY", SECRET)
    with serving("--key", SECRET, script=HTTP_SERVER) as keyed:
        done = benchmark(
            keyed.port, [conversation("stranger please", "a" * 8)], "--num-prompts", "2",
            *("--backend", "vllm", "--api-key-env", "SOME_KEY", "--header", f"X-Key: {SECRET}"),
            *("--extra-body", '{"seed": 3}', "--save-result", "--save-request-outputs"),
        )  # fmt: skip
    assert done.record["failures"] == {"HTTP 401": 2}
    assert done.record["settings"]["target"]["extra_body"] == {"seed": 3}
    assert done.record["settings"]["target"]["headers"] == ["X-Key"]
    left = [done.out, done.err, json.dumps(done.rows)]
    left += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) > 5
    assert not any(SECRET in text for text in left)
