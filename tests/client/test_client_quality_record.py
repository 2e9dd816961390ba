"""Records of quality runs, and their table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.errors import UsageError
from client.grading.record import QualityRecord, check_same, load
from client.grading.row import Row
from client.grading.table import render

HOST = {"cpu": "a processor", "cores": 2, "python": "3.11", "platform": "p", "node": "n"}
ASKED = {
    "form": "continuation", "samples": 1, "max_tokens": 8, "temperature": 0.0, "top_k": 0,
    "top_p": 1.0, "seed": 0, "problem_set": "HumanEval",
}  # fmt: skip
TEXT: dict[str, Any] = {
    "text": "a|b.txt", "tokens": 1000, "window": 64, "stride": 32, "scored_tokens": 999,
    "loss": 2.0, "perplexity": 8.0,
}  # fmt: skip
PROGRAMS: dict[str, Any] = {
    "problems": 4, "pass_at": {"1": 0.25}, "passed": 1, "tries": 4, "contained_by": ["seccomp"],
}  # fmt: skip
SPEED: dict[str, Any] = {
    "batch": 8, "prompt": 4, "tokens": 9, "decode_tokens_per_second": 1234.5, "lowest": 1000.0,
    "highest": 1300.0, "rounds": [1000.0, 1234.5, 1300.0],
}  # fmt: skip


def record(row: Row, **parts: dict[str, Any]) -> QualityRecord:
    return QualityRecord(
        command="python -m client.quality",
        date="20260102-030405",
        model="m",
        tokenizer="t",
        row=row,
        settings={"model": "m", "perplexity": {"window": 64}, "humaneval": ASKED, "speed": None},
        host=HOST,
        engine={"weight_bytes": 123456},
        parts=parts,
    )


PLAIN = record(Row("none", "none"), perplexity=TEXT, humaneval=PROGRAMS, speed=SPEED)


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    assert load(path) is None
    PLAIN.save(path)
    assert load(path) == PLAIN
    kept = json.loads(path.read_text())
    assert kept["format"] == "loadstone-quality-1"
    assert (kept["weights"], kept["kv_cache"], kept["model_id"]) == ("none", "none", "m")
    assert kept["perplexity"]["perplexity"] == 8.0 and kept["engine"]["weight_bytes"] == 123456


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "loadstone-run-1"}'])
def test_other_files_are_no_records(tmp_path: Path, content: str) -> None:
    path = tmp_path / "quality.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="not a record of quality"):
        load(path)


def test_what_was_measured_otherwise_is_not_mixed() -> None:
    path, same = Path("p"), replace(PLAIN, host=HOST | {"node": "other", "platform": "other"})
    check_same(PLAIN, same, path)
    for changed, told in (
        (replace(PLAIN, host=HOST | {"cores": 3}), "cores was 2 and is now 3"),
        (replace(PLAIN, settings=PLAIN.settings | {"model": "x"}), "model was"),
        (
            replace(PLAIN, settings=PLAIN.settings | {"perplexity": {"window": 32}}),
            "perplexity, window was 64 and is now 32",
        ),
    ):
        with pytest.raises(UsageError, match=told):
            check_same(PLAIN, changed, path)


def test_a_part_that_was_not_asked_for_may_come_later() -> None:
    only = replace(PLAIN, settings=PLAIN.settings | {"humaneval": None}, parts={})
    check_same(only, PLAIN, Path("p"))
    assert only.continued(PLAIN).settings["humaneval"] == ASKED
    check_same(PLAIN, only, Path("p"))
    assert PLAIN.continued(only).settings["humaneval"] == ASKED


def test_the_table() -> None:
    other = record(Row("int8", "int8"), perplexity=TEXT | {"perplexity": 8.1}, humaneval=PROGRAMS)
    failed = replace(record(Row("fp8", "none")), failed="no | such form", engine=None)
    lines = render([other, PLAIN, failed]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == (
        "| model | weights | KV cache | bytes of weights | perplexity | over none | pass@1 | "
        "decode tokens/s (batch 8) |"
    )
    assert rows[2] == "| m | int8 | int8 | 123,456 | 8.100 | +1.25% | 25.0% (1/4) | - |"
    assert rows[3] == (
        "| m | none | none | 123,456 | 8.000 | +0.00% | 25.0% (1/4) | 1,234 (1,000-1,300) |"
    )
    assert rows[4] == "| m | fp8 | none | - | - | - | - | - |"
    assert lines[-1] == "- fp8-kv-none: no \\| such form"
    text = "\n".join(lines)
    assert "- Date: 2026-01-02\n" in text
    assert "windows of 64 every 32, 999 tokens scored" in text and "a\\|b.txt" in text
    assert "asked as continuation, greedy, at most 8 new tokens" in text


def test_samples_are_told_and_not_added_up() -> None:
    drawn = PROGRAMS | {"pass_at": {"1": 0.1, "10": 0.5}, "tries": 40}
    asked = ASKED | {"temperature": 0.8, "samples": 10}
    found = replace(record(Row("none", "none"), humaneval=drawn), settings={"humaneval": asked})
    text = render([found])
    assert "pass@1 | pass@10" in text and "| 10.0% | 50.0% |" in text
    assert "temperature 0.8" in text and "10 samples" in text
