"""The page of `python -m client.report` in a real browser: charts, figures, safety, looks."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Page, open_page, print_page
from client_rig import conversation
from report_inputs import made_records, report, write_curve, write_run, write_sweep

from client.results.arrivals import Arrivals
from client.results.page.requests import read_requests
from client.results.page.timeline import MOST_BARS
from client.results.records import Outcome

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
