"""The command line of quality runs."""

import shlex

import pytest

from client.grading.options import parse_quality
from client.grading.row import Row
from client.targets.in_process import quantization_schemes


def test_rows_are_every_combination() -> None:
    found = parse_quality(shlex.split("--humaneval --quantize none,int8 --kv-cache none,int8"))
    assert [row.name for row in found.rows] == [
        "none-kv-none", "none-kv-int8", "int8-kv-none", "int8-kv-int8"
    ]  # fmt: skip
    assert found.rows[1].engine_options == ["--quantize-weights", "none", "--quantize-kv-cache"]
    assert [row.plain for row in found.rows] == [True, False, False, False]


def test_all_are_the_engines() -> None:
    """By default, so that a new scheme needs nothing here."""
    found = parse_quality(["--humaneval"])
    assert tuple(row.weights for row in found.rows) == quantization_schemes()


def test_what_the_engine_is_told() -> None:
    line = "--text t --model m --checkpoint c --batch-size 4 --engine '--platform cpu'"
    found = parse_quality(shlex.split(line))
    assert found.engine == (
        "--model", "m", "--checkpoint", "c", "--batch-size", "4", "--platform", "cpu"
    )  # fmt: skip
    assert found.parts == ("speed", "perplexity")


def test_the_folder_is_for_the_settings_and_not_for_the_rows() -> None:
    base = parse_quality(["--humaneval", "--quantize", "none"]).folder
    assert parse_quality(["--humaneval", "--quantize", "int8"]).folder == base
    assert parse_quality(["--humaneval", "--samples", "2", "--temperature", "1"]).folder != base
    assert base.name.startswith("quality-smollm2-135m-")


def test_another_server_has_one_row() -> None:
    line = "--humaneval --backend openai --base-url http://host:1 --label awq"
    found = parse_quality(shlex.split(line))
    assert found.rows == (Row("awq", "served"),) and found.rows[0].name == "awq"
    assert found.settings["address"] == "host:1" and found.engine == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "nothing to judge by: give --text FILE"),
        ("--humaneval --quantize int9", "--quantize: of none, "),
        ("--humaneval --quantize all,none", "--quantize: of none, "),
        ("--humaneval --quantize none,none", "none stands there twice"),
        ("--humaneval --kv-cache fp4", "--kv-cache: of none, int8; got 'fp4'"),
        ("--humaneval --samples 4", "give --temperature"),
        ("--humaneval --pass-at 2", "--pass-at 2: from 1 to --samples"),
        ("--humaneval --pass-at x", "whole numbers separated by commas"),
        ("--humaneval --first-problems 0", "--first-problems: 1 or more"),
        ("--humaneval --ignore-eos", "--ignore-eos"),
        ("--humaneval --batch-size 0", "1 or more"),
        ("--humaneval --backend openai-chat", "--prompt-form chat"),
        ("--humaneval --judge-workers -1", "--judge-workers"),
        ("--text t --tokens 1", "--tokens: 2 or more"),
        ("--text t --stride 2000", "--stride: from 1 to --window"),
        ("--text t --text-column c", "are for --text hf:NAME"),
        ("--text t --backend openai", "--text is for --backend in-process"),
        ("--humaneval --backend openai --label 'a b'", "a row's name"),
    ],
)
def test_contradictions_are_told(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_quality(shlex.split(line))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
