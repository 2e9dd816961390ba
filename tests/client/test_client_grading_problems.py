"""Files of problems."""

import gzip
import json
from pathlib import Path

import pytest

from client.errors import UsageError
from client.grading.problems import read_problems

LINE = {
    "task_id": "t/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    1\n",
    "test": "def check(c): pass\n", "more": 1,
}  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
def test_lines_become_problems(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("p.jsonl.gz" if packed else "p.jsonl")
    data = (json.dumps(LINE) + "\n\n" + json.dumps(LINE | {"task_id": "t/1"})).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    problems = read_problems(path)
    assert [problem.id for problem in problems] == ["t/0", "t/1"]
    assert problems[0].program("    pass") == "def f():\n    pass"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no problems"),
        (b"{", "line 1: not JSON"),
        (b"[1]", "line 1: a problem is an object"),
        (json.dumps({**LINE, "test": 3}).encode(), "missing: test"),
        (b"\n".join([json.dumps(LINE).encode()] * 2), "two problems t/0"),
        (b"\xff", "cannot read"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_problems(path)


def test_a_broken_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(LINE).encode())[:-9])
    with pytest.raises(UsageError, match="cannot read"):
        read_problems(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_problems(tmp_path / "absent.jsonl")
