"""The page of `python -m client.report`: its numbers, its charts in a real browser, bad input."""

import builtins
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Page, open_page, print_page
from client_rig import conversation
from hypothesis import given
from hypothesis import strategies as st
from report_inputs import made_records, write_curve, write_run, write_sweep

from client.report import main
from client.results.arrivals import Arrivals
from client.results.page.distributions import cumulative, histogram
from client.results.page.over_time import bin_width, series_of
from client.results.page.page import render_page
from client.results.page.requests import read_requests, requests_from
from client.results.page.sources import read_sources
from client.results.page.timeline import MOST_BARS, sample
from client.results.page.values import finite, number, text
from client.results.records import Outcome
from client.results.rows import row

# The link comes first: labels are cut.
HOSTILE = (
    '<a href="https://example.org/x">x</a>'
    "</script><script>document.documentElement.dataset.owned=1</script>"
    '"\'><img src=x onerror="document.documentElement.dataset.owned=1"><!--'
    "<b>%{x}</b>{{ 7 * 7 }}${1}\ud800\u2028"
)
RUN_CHARTS = {
    "over-time", "ttft-histogram", "ttft-cumulative", "itl-histogram", "itl-cumulative",
    "timeline-0",
}  # fmt: skip


def report(folder: Path, *records: Path, flags: tuple[str, ...] = ()) -> Path:
    """Makes a page by the command and returns its path."""
    page = folder / "page.html"
    assert main([*map(str, records), "-o", str(page), *flags]) == 0
    return page


def opened(folder: Path, *records: Path) -> Page:
    """The page in the browser, which must have drawn every chart and met no error."""
    page = open_page(report(folder, *records))
    assert page.errors == ""
    assert page.root["data-drawn"] == str(len(page.charts))
    for chart in page.charts.values():
        assert chart.rendered, chart.name
        assert chart.shapes, chart.name
    return page


def test_a_run_in_the_browser_shows_its_charts_and_exactly_its_figures(tmp_path):
    path = write_run(tmp_path, "a", made_records(), verdict="VALID")
    page = opened(tmp_path, path)
    assert set(page.charts) == RUN_CHARTS
    record = json.loads(path.read_text())
    assert {key for key, _, _ in page.figures} >= {
        "output_throughput", "p99_ttft_ms", "p50_itl_ms", "p99_e2el_ms", "completed", "duration",
    }  # fmt: skip
    for key, value, shown in page.figures:
        assert value == record[key]
        digits = len(shown.removesuffix(" ms").partition(".")[2])
        assert float(re.sub("[, ms]", "", shown)) == pytest.approx(value, abs=0.51 * 10**-digits)
    assert "VALID a-model" in page.text
    assert f"{record['failures']['RESOURCE_EXHAUSTED']} of 80 requests failed" in page.text
    assert "failed: RESOURCE_EXHAUSTED" in page.text
    assert "metadata.chips" in page.html
    # One bar each for the wait and the tokens of completed requests, and one for a failed one.
    assert page.charts["timeline-0"].shapes >= 2 * record["completed"] + record["failed"]


def test_runs_lie_over_each_other_beside_a_curve_and_a_sweep(tmp_path):
    paths = [
        write_run(tmp_path, "a", made_records()),
        write_run(tmp_path, "b", made_records(rate=16, seed=1), rate=16.0,
                  verdict={"verdict": "INVALID", "reasons": ["the client was too slow"]}),
        write_curve(tmp_path),
        write_sweep(tmp_path),
    ]  # fmt: skip
    page = opened(tmp_path, *paths)
    sweeps = {f"sweep-0-{place}" for place in range(4)}
    rates = {f"rate-{kind}-{place}" for kind in ("latency", "throughput") for place in (0, 1)}
    assert set(page.charts) == RUN_CHARTS | {"timeline-1"} | sweeps | rates
    for words in (
        "INVALID a-model, 16 requests/s", "the client was too slow", "Side by side", "knee 8",
        "highest rate met 6.5", "6.50 requests/s", "oom", "refused",
        "weights int8, sharded by batch", "131,072 positions do not fit",
    ):  # fmt: skip
        assert words in page.text, words
    both = [json.loads(path.read_text()) for path in paths[:2]]
    shown = [value for key, value, _ in page.figures if key == "p99_ttft_ms"]
    assert shown[:2] == [record["p99_ttft_ms"] for record in both]
    change = both[1]["p99_ttft_ms"] / both[0]["p99_ttft_ms"] - 1
    assert f"{change:+.1%}" in page.text


def test_a_real_run_of_the_client_becomes_a_page(server, benchmark, tmp_path):
    data = [conversation("go please", "a" * 20, "x"), conversation("refuse please", "a" * 9, "y")]
    done = benchmark(server.port, data, "--num-prompts", "12", "--request-rate", "30")
    (path,) = done.folder.glob("loadstone-*.json")
    page = opened(tmp_path, path)
    assert set(page.charts) == RUN_CHARTS
    assert "6 of 12 requests failed" in page.text
    for key, value, _ in page.figures:
        assert value == done.record[key]
    requests = read_requests(path.with_suffix(".jsonl"))
    assert np.median(requests.ttfts()) == pytest.approx(done.record["p50_ttft_ms"])
    gaps = np.concatenate(requests.gaps())
    assert np.percentile(gaps, 99) == pytest.approx(done.record["p99_itl_ms"], abs=1e-3)


def test_hostile_text_is_shown_and_never_run(tmp_path):
    records = [
        replace(record, prompt_id=HOSTILE, cause=HOSTILE if record.cause else "")
        for record in made_records(failing=0.3)
    ]
    paths = [
        write_run(tmp_path, name, records, rate=rate, model_id=HOSTILE, notes=[HOSTILE],
                  verdict="INVALID", verdict_reasons=[HOSTILE], metadata={HOSTILE: HOSTILE},
                  settings={"target": {HOSTILE: [HOSTILE]}}, host={"cpu": HOSTILE},
                  finish_reasons={HOSTILE: 3})
        for name, rate in (("a", 4.0), ("b", 8.0))
    ]  # fmt: skip
    curve = json.loads(write_curve(tmp_path).read_text())
    points = [point | {"record": HOSTILE, "verdict": HOSTILE} for point in curve["points"]]
    level = {HOSTILE: HOSTILE, "ttft": HOSTILE}
    cell = {"batch_size": 1, "cache_length": 2, "quantize": HOSTILE, "sharding": HOSTILE,
            "status": HOSTILE, "reason": HOSTILE}  # fmt: skip
    page = opened(
        tmp_path,
        *paths,
        write_curve(tmp_path, points=points, service_level=level),
        write_sweep(tmp_path, cells=[cell], machine={HOSTILE: HOSTILE}),
    )
    assert "data-owned" not in page.root
    assert "owned=1</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not page.elements_of("img")
    assert len(page.elements_of("script")) == 4
    # Plotly makes links of <a> in its text; nothing of the input may become an element of a chart.
    assert not page.elements_of("a")


def test_the_page_loads_nothing_and_its_policy_forbids_it(tmp_path):
    path = report(tmp_path, write_run(tmp_path, "a", made_records()))
    content = path.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', content)
    assert policy is not None
    assert policy.group(1).startswith("default-src 'none'; script-src 'unsafe-inline';")
    assert "http" not in policy.group(1) and "*" not in policy.group(1)
    page = open_page(path)
    for tag, name in (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")):
        for values in page.elements_of(tag):
            assert (values.get(name) or "data:").startswith("data:"), (tag, values)
    # The policy is at work: what is injected is refused, and the page says so.
    probe = '<script>fetch("https://example.org/x").catch(() => 0)</script></body>'
    path.write_text(content.replace("</body>", probe))
    assert "connect-src https://example.org/x" in open_page(path).errors


def test_a_script_error_is_shown_on_the_page(tmp_path):
    path = report(tmp_path, write_run(tmp_path, "a", made_records()))
    path.write_text(path.read_text().replace('"type":"scatter"', '"type":"scatter","x":0', 1)
                    .replace("chart-over-time", "chart-gone"))  # fmt: skip
    assert "Script error" in open_page(path).errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 500])
def test_it_fits_any_width_and_follows_the_colour_scheme(tmp_path, scheme, width):
    path = report(tmp_path, write_run(tmp_path, "a", made_records()))
    flag = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    probe = (
        "<script>addEventListener('load', () => setTimeout(() => {"
        "const root = document.documentElement;"
        "root.dataset.overflow = root.scrollWidth - root.clientWidth;"
        "root.dataset.page = getComputedStyle(document.body).backgroundColor;"
        "root.dataset.tick = getComputedStyle(document.querySelector('.xtick text')).fill;"
        "}, 5000))</script></body>"
    )
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text().replace("</body>", probe))
    root = open_page(probed, flag, f"--window-size={width},900").root
    assert int(root["data-overflow"] or -1) == 0
    lightness = {name: _lightness(root[f"data-{name}"]) for name in ("page", "tick")}
    assert (lightness["page"] < 60) == (scheme == "dark")
    assert abs(lightness["page"] - lightness["tick"]) > 120


def _lightness(colour: str | None) -> float:
    values = [int(value) for value in re.findall(r"\d+", colour or "")[:3]]
    return sum(values) / 3


def test_it_prints(tmp_path):
    path = report(tmp_path, write_run(tmp_path, "a", made_records()))
    document = tmp_path / "page.pdf"
    print_page(path, document)
    assert document.read_bytes().startswith(b"%PDF")
    assert document.stat().st_size > 30_000


def test_many_requests_are_sampled_and_stay_small(tmp_path):
    records = made_records(count=2600, tokens=56, rate=60)
    path = write_run(tmp_path, "a", records, rate=60.0)
    assert json.loads(path.read_text())["total_output_tokens"] > 100_000
    page = opened(tmp_path, path)
    assert "2,000 of the 2,600 requests that were sent, picked at random (seed 0)" in page.text
    assert (tmp_path / "page.html").stat().st_size < 8_000_000
    # Due, waiting, and tokens of each that is drawn, and a few for the axes.
    assert 2 * MOST_BARS < page.charts["timeline-0"].shapes < 3 * MOST_BARS + 100


def test_an_empty_run_and_an_interrupted_one_make_a_page(tmp_path):
    failed = [
        replace(record, arrivals=Arrivals.of([]), outcome=Outcome.FAILED, cause="timeout")
        for record in made_records(count=5)
    ]
    page = opened(tmp_path, write_run(tmp_path, "failed", failed))
    assert "no request completed" in page.text
    assert set(page.charts) == {"over-time", "timeline-0"}
    cut = [
        replace(record, outcome=Outcome.UNFINISHED, ended=None) if record.index > 20 else record
        for record in made_records(count=30)
    ]
    cut += [
        replace(record, index=30 + record.index, outcome=Outcome.NOT_SENT, sent=None, ended=None,
                scheduled=None, arrivals=Arrivals.of([]))
        for record in made_records(count=4)
    ]  # fmt: skip
    page = opened(tmp_path, write_run(tmp_path, "cut", cut, interrupted=True))
    assert "the run was interrupted" in page.text
    assert "unfinished" in page.text
    page = opened(tmp_path, write_run(tmp_path, "nothing", []))
    assert page.charts == {}


def test_without_rows_the_figures_of_the_record_are_left(tmp_path):
    path = write_run(tmp_path, "a", made_records())
    path.with_suffix(".jsonl").unlink()
    page = opened(tmp_path, path)
    assert "loadstone-a.jsonl) cannot be read: No such file or directory" in page.text
    assert page.charts == {}
    assert "p99_ttft_ms" in {key for key, _, _ in page.figures}


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
    graph_objects = pytest.importorskip("plotly.graph_objects")
    write_run(tmp_path, "a", made_records())
    write_run(tmp_path, "b", made_records(seed=1), rate=12.0)
    write_curve(tmp_path)
    write_sweep(tmp_path)
    page = render_page(read_sources([tmp_path]), "t")
    found = re.search(r'<script type="application/json" id="documents">(.*?)</script>', page)
    assert found is not None
    for document in json.loads(found.group(1)):
        graph_objects.Figure({"data": document["data"], "layout": document["layout"]})


@given(
    st.integers(0, 40),
    st.floats(0.5, 50),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.integers(1, 30),
)
def test_series_keep_every_token_and_the_peak(count, rate, seed, failing, tokens):
    records = made_records(count, tokens, rate, seed, failing)
    requests = requests_from([row(record, with_text=False) for record in records])
    duration = max((record.ended or 0.0 for record in records), default=0.0)
    series = series_of(requests, duration)
    assert 1 <= series.starts.size <= 101
    spans = np.minimum(series.starts + series.width, max(duration, 1e-3)) - series.starts
    came = sum(record.tokens for record in records)
    assert (series.tokens_per_s * spans).sum() == pytest.approx(came)
    assert series.in_flight.max() == _peak(records)


def _peak(records) -> int:
    """Counted the slow way: how many are open just after each is sent."""
    opens = [(record.sent, record.ended) for record in records]
    return max((sum(a <= at < b for a, b in opens) for at, _ in opens), default=0)


@given(st.floats(1e-3, 1e6))
def test_bins_are_round_and_few(length):
    width = bin_width(length)
    assert length / width <= 100 + 1e-6
    mantissa = width / 10 ** math.floor(math.log10(width) + 1e-9)
    assert any(mantissa == pytest.approx(step) for step in (1, 2, 5))


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=60))
def test_shares_add_up_and_grow(values):
    array = np.array(values)
    assert histogram(array, np.linspace(0, 1e5, 20)).sum() == pytest.approx(100)
    times, percent = cumulative(array)
    assert (np.diff(times) >= 0).all() and (np.diff(percent) > 0).all()
    assert (times[0], times[-1]) == (array.min(), array.max())


def test_a_sample_is_seeded_ordered_and_fair():
    chosen = sample(10 * MOST_BARS, MOST_BARS)
    assert (np.diff(chosen) > 0).all() and chosen.size == MOST_BARS
    assert (chosen == sample(10 * MOST_BARS, MOST_BARS)).all()
    tenths = Counter((chosen // MOST_BARS).tolist())
    assert min(tenths.values()) > 140 and len(tenths) == 10
    assert (sample(3, MOST_BARS) == [0, 1, 2]).all()


@pytest.mark.parametrize("value", [None, True, "7", [1], math.inf, math.nan, 10**400])
def test_only_numbers_are_numbers(value):
    assert finite(value) is None
    assert number(value) == "-"
    assert text(value)


def test_a_row_may_lack_anything(tmp_path):
    requests = requests_from([{}, {"sent": 1.0}, {"sent": 0.5, "ttft": "x", "itls": 3}])
    assert len(requests) == 3
    assert requests.ids == ("", "", "")
    assert requests.sent[0] == 0.5
    assert requests.end() == 1.0
    path = write_run(tmp_path, "a", [])
    path.with_suffix(".jsonl").write_text("{}\n{}\n")
    assert report(tmp_path, path).stat().st_size > 0
