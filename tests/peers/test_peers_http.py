"""Our client against a server, and our server under load generators, that nobody here wrote."""

import json
import os
import subprocess
import sys

import pytest

from tests.peers.environments import (
    ROOT,
    free_port,
    listening,
    program,
    tokenizer_folder,
    with_template,
)
from tests.server.running import make_checkpoint, running

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Our own server on a tiny model, with HTTP."""
    folder = tmp_path_factory.mktemp("server")
    model = with_template(make_checkpoint(folder / "model"))
    with running(folder, model, "--http-port", "0", "--served-model-name", "tiny"):
        yield json.loads((folder / "ready.json").read_text())["http_port"]


@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_our_client_measures_transformers_serve(tmp_path, backend):
    transformers, port = program(".venv-peers", "transformers"), free_port()
    model = with_template(make_checkpoint(tmp_path / "model"))
    command = [str(transformers), "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with listening(command, port, tmp_path / "log", seconds=180):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "client.benchmark", "--backend", backend),
                *("--server", "127.0.0.1", "--port", str(port), "--tokenizer", str(model)),
                *("--served-model-name", str(model), "--num-prompts", "12"),
                *("--max-concurrency", "4", "--max-input-length", "64"),
                *("--max-output-length", "8", "--result-dir", str(tmp_path), "--disable-tqdm"),
            ],
            capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("loadstone-*.json")
    record = json.loads(path.read_text())
    assert record["completed"] == 12
    assert record["counted_by"] == "usage"
    assert 12 < record["total_output_tokens"] <= 96


def test_guidellm_measures_our_server(served, tmp_path):
    guidellm = program(".venv-clients", "guidellm")
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")
    done = subprocess.run(
        [
            *(guidellm, "run", "--disable-progress"),
            *("--backend", f"kind=openai_http,target=http://127.0.0.1:{served}"),
            *("--profile", "kind=concurrent,streams=4"),
            *("--constraint", "kind=max_requests,count=12"),
            *("--tokenizer", f"kind=hf_auto,model={tokenizer}"),
            *("--data", "kind=synthetic_text,prompt_tokens=20,output_tokens=8"),
            *("--output", f"kind=json,path={tmp_path / 'guidellm.json'}"),
        ],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (benchmark,) = json.loads((tmp_path / "guidellm.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (12, 0)
    assert benchmark["metrics"]["output_token_count"]["successful"]["mean"] == 8


def test_aiperf_measures_our_server(served, tmp_path):
    aiperf = program(".venv-aiperf", "aiperf")
    tokenizer = tokenizer_folder(tmp_path / "tokenizer")
    done = subprocess.run(
        [
            *(aiperf, "profile", "-m", "tiny", "--url", f"http://127.0.0.1:{served}"),
            *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
            *("--tokenizer", str(tokenizer), "--concurrency", "4", "--request-count", "12"),
            *("--synthetic-input-tokens-mean", "20", "--output-tokens-mean", "8"),
            *("--extra-inputs", "ignore_eos:true", "--ui", "none"),
            *("--artifact-dir", str(tmp_path / "aiperf")),
        ],
        # A tokenizer's folder is only looked at when it is not told to be offline.
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads((tmp_path / "aiperf" / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == 12
    assert found["output_sequence_length"]["avg"] == 8
