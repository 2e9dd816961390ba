"""The client's workers on a Ray cluster of one machine."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.calibration.floor import read_truth, truth_server
from tests.peers.environments import ROOT, free_port

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="ray is not here: .venv/bin/pip install 'loadstone[ray]'",
    ),
]
RAY = Path(sys.executable).parent / "ray"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with four cores, whatever the machine has."""
    address = f"127.0.0.1:{free_port()}"
    start = ["start", "--head", "--num-cpus", "4", "--port", address.partition(":")[2]]
    flags = ["--include-dashboard=false", "--disable-usage-stats"]
    subprocess.run([RAY, *start, *flags], check=True, capture_output=True, timeout=120, cwd=ROOT)
    yield address
    subprocess.run([RAY, "stop", "--force"], check=True, capture_output=True, timeout=120)


def asked(folder: Path, *options: str) -> tuple[dict, dict]:
    """The record of a run, and what the server was asked: prompt -> tokens."""
    with truth_server("--ttft-ms", "20", "--itl-ms", "5") as ports:
        command = [
            *(sys.executable, "-m", "client.benchmark", "--backend", "openai"),
            *("--server", "127.0.0.1", "--port", str(ports["http"]), "--num-prompts", "60"),
            *("--request-rate", "30", "--dataset", "synthetic", "--random-input-len", "8"),
            *("--random-output-len", "20", "--result-dir", str(folder), "--disable-tqdm", *options),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False
        )
        truth = read_truth(ports["http"])
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("loadstone-*.json")
    counts = {prompt: len(sends) for prompt, (_, sends) in truth.items()}
    return json.loads(path.read_text()), counts


def test_ray_asks_what_processes_ask(cluster, tmp_path):
    runs = {
        "one": asked(tmp_path / "one"),
        "two": asked(tmp_path / "two", "--workers", "2"),
        "ray": asked(tmp_path / "ray", "--workers", "2", "--ray", cluster),
    }
    for record, counts in runs.values():
        assert record["workload_digest"] == runs["one"][0]["workload_digest"]
        assert counts == runs["one"][1]
        assert record["output_throughput"] == pytest.approx(
            runs["one"][0]["output_throughput"], rel=0.1
        )
    assert runs["ray"][0]["health"]["workers"] == 2


def test_a_cluster_that_is_not_there_is_one_line():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "client.benchmark", "--ray", f"127.0.0.1:{free_port()}"),
            *("--num-prompts", "1", "--no-health-check"),
        ],
        capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "ray start --head" in done.stderr.splitlines()[-1]
