"""On a GPU: what the compiler says programs need is what the device reports."""

import json
import subprocess
import sys

import jax
import pytest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_compiled_is_taken(scheme: str) -> None:
    """In a process of its own, whose peak nothing else has raised."""
    if jax.devices()[0].platform != "gpu":
        pytest.skip(f"needs a GPU, this is a {jax.devices()[0].platform}")
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.compiled_memory", "--model", "opt-1.3b",
            "--batch-size", "64", "--quantize", scheme, "--platform", "gpu", "--json",
        ],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {one["what"]: one for one in json.loads(done.stdout)}
    for what in ("weights, cache and state", "the largest program"):
        one = found[what]
        assert abs(one["compiled"] / one["taken"] - 1) < 0.02, one
