"""`python -m client.report`: its files, what it leaves out, and bad input."""

import builtins
import json
import re

import pytest
from report_inputs import made_records, report, write_curve, write_run, write_sweep

from client.report import main
from client.results.page.page import render_page
from client.results.page.requests import requests_from
from client.results.page.sources import read_sources


def test_what_is_secret_stays_at_home(tmp_path):
    settings = {
        "target": {"api_key": "sk-123", "header": {"X": "sk-123"}},
        "Authorization": "sk-123",
    }
    path = report(tmp_path, write_run(tmp_path, "a", made_records(), settings=settings))
    assert "sk-123" not in path.read_text()
    assert "settings.target.api_key" in path.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "has no format"),
        ('{"metrics": {}}', "loadstone-run-1, loadstone-curve-1, loadstone-sweep-1"),
        ('{"format": "loadstone-run-9"}', "'loadstone-run-9'"),
        ('{"format": ["x"]}', "has the format 'x'"),
        ('{"format": "loadstone-run-1", "duration": NaN}', "NaN is not a JSON value"),
        ('{"format": "loadstone-curve-1", "points": [1]}', "points is a list of objects"),
        ('{"format": "loadstone-sweep-1", "cells": ["x"]}', "cells is a list of objects"),
    ],
)
def test_a_file_that_is_no_record_is_one_line_and_status_two(tmp_path, capsys, content, message):
    path = tmp_path / "loadstone-x.json"
    if content is not None:
        path.write_text(content)
    assert main([str(path), "-o", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("line", ["{", "[1]", '{"sent": Infinity}'])
def test_a_row_that_is_none_names_its_line(tmp_path, capsys, line):
    path = write_run(tmp_path, "a", made_records(count=3))
    rows = path.with_suffix(".jsonl")
    rows.write_text(rows.read_text() + line + "\n")
    assert main([str(path), "-o", str(tmp_path / "page.html")]) == 2
    assert f"{rows}:4" in capsys.readouterr().err


def test_wrong_paths_are_said(tmp_path, capsys):
    path = write_run(tmp_path, "a", made_records(count=3))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ([path.with_suffix(".jsonl")], f"give the record, {path}"),
        ([empty], "no record (loadstone-*.json, sweep.json"),
        ([path, "-o", path], "give the page another name"),
        ([path, "-o", tmp_path / "absent" / "page.html"], "give another -o"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        assert message in capsys.readouterr().err
    for place in range(25):
        write_run(tmp_path, f"run-{place}", made_records(count=1))
    assert main([str(tmp_path), "-o", str(tmp_path / "page.html")]) == 2
    assert "26 runs; a page holds 24" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_without_plotly_it_names_what_to_install(tmp_path, capsys, monkeypatch):
    path = write_run(tmp_path, "a", made_records(count=3))
    usual = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("plotly"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main([str(path), "-o", str(tmp_path / "page.html")]) == 2
    assert "pip install 'loadstone[report]'" in capsys.readouterr().err


def test_a_folder_stands_for_its_records_and_labels_tell_them_apart(tmp_path):
    for name, rate in (("a", 4.0), ("b", 4.0), ("c", 8.0)):
        write_run(tmp_path, name, made_records(count=3), rate=rate, date=f"date-{name}")
    (tmp_path / "loadstone-a.outputs.json").write_text("[]")
    labels = [run.label for run in read_sources([tmp_path, tmp_path / "loadstone-a.json"]).runs]
    assert labels == [
        "a-model, 4 requests/s, date-a",
        "a-model, 4 requests/s, date-b",
        "a-model, 8 requests/s, date-c",
    ]


def test_every_figure_is_one_that_plotly_knows(tmp_path):
    graph_objects = pytest.importorskip(
        "plotly.graph_objects", reason="plotly is not installed: pip install 'loadstone[report]'"
    )
    write_run(tmp_path, "a", made_records())
    write_run(tmp_path, "b", made_records(seed=1), rate=12.0)
    write_curve(tmp_path)
    write_sweep(tmp_path)
    page = render_page(read_sources([tmp_path]), "t")
    found = re.search(r'<script type="application/json" id="documents">(.*?)</script>', page)
    assert found is not None
    for document in json.loads(found.group(1)):
        graph_objects.Figure({"data": document["data"], "layout": document["layout"]})


def test_a_row_may_lack_anything(tmp_path):
    requests = requests_from([{}, {"sent": 1.0}, {"sent": 0.5, "ttft": "x", "itls": 3}])
    assert len(requests) == 3
    assert requests.ids == ("", "", "")
    assert requests.sent[0] == 0.5
    assert requests.end() == 1.0
    path = write_run(tmp_path, "a", [])
    path.with_suffix(".jsonl").write_text("{}\n{}\n")
    assert report(tmp_path, path).stat().st_size > 0
