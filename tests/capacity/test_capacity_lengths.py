"""Lengths of prompts and answers, from wherever they are given."""

import json
from pathlib import Path

import numpy as np
import pytest
from capacity_records import write_rows

from capacity.serving.lengths import Lengths, parse_lengths
from client.errors import UsageError

SAMPLE = Path(__file__).parents[2] / "datasets" / "sample_sharegpt.json"


def test_given_lengths() -> None:
    assert parse_lengths("200:300").inputs.tolist() == [200]
    assert parse_lengths("200:300").outputs.tolist() == [300]
    spread = parse_lengths("200:300~0.8")
    assert spread.inputs.mean() == pytest.approx(200, rel=0.02)
    assert spread.outputs.mean() == pytest.approx(300, rel=0.02)
    assert np.log(spread.inputs).std() == pytest.approx(0.8, rel=0.05)
    assert abs(np.corrcoef(spread.inputs, spread.outputs)[0, 1]) < 0.1


def test_the_sample_is_that_of_the_data_set() -> None:
    kept, read = parse_lengths("sample"), parse_lengths(str(SAMPLE))
    assert kept.inputs.tolist() == read.inputs.tolist()
    assert kept.outputs.tolist() == read.outputs.tolist()


def test_a_trace_and_rows(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0.1,10,20\n0.2,30,0\n0.3,50,60\n")
    assert parse_lengths(str(trace)).inputs.tolist() == [10, 50]
    mooncake = tmp_path / "trace.jsonl"
    mooncake.write_text(json.dumps({"timestamp": 1, "input_length": 7, "output_length": 8}))
    assert parse_lengths(str(mooncake)).outputs.tolist() == [8]
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, Lengths(np.array([5, 6]), np.array([7, 8]), "made"))
    assert parse_lengths(str(rows)).outputs.tolist() == [7, 8]


def test_draws_are_the_same_for_the_same_seed() -> None:
    sample = parse_lengths("sample")
    first, again = sample.draw(50, 1), sample.draw(50, 1)
    assert first.inputs.tolist() == again.inputs.tolist()
    assert sample.capped(40).outputs.max() == 40


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0:5", "1 token or more"),
        ("200", "PROMPT:ANSWER"),
        ("nothing.csv", "PROMPT:ANSWER"),
        ("5:5~x", "after ~ a number"),
        ("5:5~-1", "after ~ a number"),
    ],
)
def test_wrong_lengths_say_what_is_right(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_lengths(text)
    assert says in str(caught.value)
