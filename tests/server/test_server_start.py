"""What cannot be served is refused at the start, with a reason; SIGTERM lets requests finish."""

import json
import shutil

import pytest

from tests.api.served import by_ids
from tests.server.running import launch, make_checkpoint, running


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("start") / "llama")


def refusal(*options: str) -> str:
    done = launch(*options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_an_unknown_model_lists_the_known_ones():
    said = refusal("--model", "no-such-model")
    assert "no-such-model" in said
    assert "llama2-7b" in said


def test_a_known_model_without_weights_says_what_to_pass():
    said = refusal("--model", "llama2-7b")
    assert "CHECKPOINT" in said
    assert "LOAD_FORMAT=dummy" in said


def test_a_truncated_checkpoint_names_the_file(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert "model.safetensors" in refusal("--model", str(broken))


def test_a_checkpoint_of_another_model_is_named(checkpoint):
    said = refusal("--model", "llama2-7b", "--checkpoint", str(checkpoint))
    assert "hidden" in said
    assert "4096" in said


def test_an_unsupported_architecture_lists_the_supported(checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["MambaForCausalLM"]}))
    said = refusal("--model", str(other))
    assert "MambaForCausalLM" in said
    assert "LlamaForCausalLM" in said


def test_a_tokenizer_that_does_not_match_is_refused(tmp_path):
    model = make_checkpoint(tmp_path / "mismatch", vocabulary=5000)
    assert "5000" in refusal("--model", str(model))


def test_a_batch_that_cannot_fit_is_refused_with_the_largest_that_does():
    options = ("--model", "llama2-7b", "--quantize", "int8", "--load-format", "dummy")
    said = refusal(*options, "--batch-size", "4096")
    assert "the largest batch that fits is" in said or "no batch fits" in said


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--batch-size", "0", "at least 1"),
        ("--cache-length", "-1", "at least 1"),
        ("--devices", "99", "there are"),
        ("--port", "70000", "65535"),
    ],
)
def test_a_wrong_setting_names_what_is_allowed(checkpoint, option, value, says):
    assert says in refusal("--model", str(checkpoint), option, value)


def test_sigterm_drains(checkpoint, tmp_path):
    with running(tmp_path, checkpoint) as server:
        call = server.served.stub.Decode(by_ids([1, 2, 3], 2000, ignore_eos=True), timeout=60)
        first = next(call)
        status = server.end()
        ids = [t for m in (first, *call) for s in m.stream_content.samples for t in s.token_ids]
        assert status == 0
        assert len(ids) == 2000
