"""The sample workload: made the same each time, in ShareGPT's schema, with ShareGPT's lengths."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import quantiles

import pytest

from tokenization import default_model_path, load_tokenizer

DATASETS = Path(__file__).parents[2] / "datasets"
SAMPLE = DATASETS / "sample_sharegpt.json"
ENTRIES = json.loads(SAMPLE.read_text(encoding="utf-8"))
TURNS = [[turn["value"] for turn in entry["conversations"]] for entry in ENTRIES]


@pytest.fixture(scope="module")
def lengths() -> list[list[int]]:
    """Tokens of each turn of each conversation."""
    tokenizer = load_tokenizer(default_model_path())
    return [[len(tokenizer.encode(turn)) for turn in turns] for turns in TURNS]


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    made = tmp_path / "sample.json"
    command = [sys.executable, str(DATASETS / "make_sample.py"), "--output", str(made)]
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path)
    assert made.read_bytes() == SAMPLE.read_bytes()


def test_schema() -> None:
    assert len(ENTRIES) >= 200
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert set(entry) == {"id", "conversations"}
        speakers = [turn["from"] for turn in entry["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2) and len(speakers) >= 2
        assert all(turn["value"].strip() for turn in entry["conversations"])


def test_variety() -> None:
    assert len({turns[0] for turns in TURNS}) == len(TURNS)
    assert len({turns[1] for turns in TURNS}) == len(TURNS)
    openings = {" ".join(turns[0].split()[:3]).lower() for turns in TURNS}
    assert len(openings) > 100
    assert sum(len(turns) >= 4 for turns in TURNS) >= 25
    assert sum("```" in "".join(turns) for turns in TURNS) >= 25
    assert sum(any(ord(c) > 0x2FF for c in "".join(turns)) for turns in TURNS) >= 4
    assert not any(re.search(r"[{}]\w+[}]|lorem ipsum", turns[0]) for turns in TURNS)


@pytest.mark.parametrize(("turn", "p50", "p90"), [(0, 90, 700), (1, 170, 600)])
def test_lengths_are_like_those_of_sharegpt(
    lengths: list[list[int]], turn: int, p50: int, p90: int
) -> None:
    tenths = quantiles([row[turn] for row in lengths], n=10)
    assert tenths[4] == pytest.approx(p50, rel=0.15)
    assert tenths[8] == pytest.approx(p90, rel=0.15)


def test_nearly_all_pass_the_sharegpt_filter(lengths: list[list[int]]) -> None:
    kept = [row for row in lengths if min(row[:2]) >= 4 and row[0] <= 1024 and sum(row[:2]) <= 2048]
    assert len(ENTRIES) - len(kept) <= 3


def test_the_readme_tells_the_measured_lengths() -> None:
    command = [sys.executable, str(DATASETS / "make_sample.py"), "--stats"]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    readme = (DATASETS / "README.md").read_text(encoding="utf-8")
    assert (
        f"{len(ENTRIES)} conversations" in done.stdout and f"{len(ENTRIES)} conversations" in readme
    )
    for name in ("prompt", "first reply"):
        measured = re.search(rf"^{name} .*p50 (\d+)  p90 (\d+)  max (\d+)", done.stdout, re.M)
        assert measured is not None
        assert re.search(rf"{name} \(turn \d\) \| {' . '.join(measured.groups())} ", readme)


def test_answers_from_tables_are_right() -> None:
    checked = 0
    for turns in TURNS:
        rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", turns[0], re.M)
        for name, *units in rows:
            assert f"{name}: {sum(map(int, units)):,}" in turns[1]
            checked += 1
    assert checked >= 30


def test_size_and_place() -> None:
    assert SAMPLE.stat().st_size < 800_000
    assert not (DATASETS / "__init__.py").exists()
