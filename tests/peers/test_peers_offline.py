"""Our engine and Hugging Face transformers beside each other on the same checkpoints."""

import json
import subprocess
import sys

import pytest

from tests.peers.environments import OFFLINE, ROOT, program

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]
FIXTURES = ROOT / "tests" / "fixtures" / "models"
FAMILIES = ("llama31", "qwen25", "gemma", "bloom", "opt", "starcoder2")


def run(folder, *words: str) -> list[dict]:
    """The cells of a run of all families."""
    python = program(".venv-peers", "python")
    command = [sys.executable, "-m", "client.offline", "--transformers-python", str(python)]
    command += ["--models", ",".join(str(FIXTURES / name) for name in FAMILIES)]
    command += ["--quantize", "none", "--transformers-kinds", "float32", "--timed", "1"]
    command += ["--bandwidth-gbps", "10", "--peak-tflops", "1", "--out", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=OFFLINE, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "printed.md").write_text(done.stdout)
    return json.loads((folder / "offline.json").read_text())["cells"]


def pairs(cells: list[dict]) -> list[tuple[dict, dict]]:
    """Ours and theirs of each model."""
    assert all(cell["status"] == "ok" for cell in cells), [cell["reason"] for cell in cells]
    engines = [[c for c in cells if c["engine"] == name] for name in ("loadstone", "transformers")]
    found = list(zip(*engines, strict=True))
    assert [ours["model"] for ours, _ in found] == list(FAMILIES)
    return found


def test_every_family_makes_the_same_tokens(tmp_path):
    cells = run(tmp_path, "--prompts", "9,5", "--new-tokens", "12", "--batch-sizes", "3")
    for ours, theirs in pairs(cells):
        # Random weights leave near ties; most of the text must still be the same.
        same = [a == b for a, b in zip(ours["first_row"], theirs["first_row"], strict=True)]
        assert sum(same) >= 9, ours["model"]
        assert ours["facts"]["parameters"] == theirs["facts"]["parameters"]
        assert ours["facts"]["sizes"] == theirs["facts"]["sizes"]
    assert "first tokens of row 1 equal" in (tmp_path / "printed.md").read_text()


def test_every_family_has_the_same_loss(tmp_path):
    words = ("--preset", "forward-loss", "--contexts", "24", "--batch-sizes", "2")
    for ours, theirs in pairs(run(tmp_path, *words)):
        assert ours["value"] == pytest.approx(theirs["value"], abs=1e-3), ours["model"]


def test_every_family_passes_without_a_cache(tmp_path):
    words = ("--preset", "uncached-forward", "--contexts", "24", "--batch-sizes", "2")
    words += ("--minibatch-forwards", "2", "--attention", "flash")
    assert pairs(run(tmp_path, *words, "--transformers-attention", "eager"))
