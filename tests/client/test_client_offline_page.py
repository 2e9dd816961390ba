"""The page of an in-process benchmark: speed over size, and speed against quality."""

import json
from pathlib import Path

from browser import open_page
from offline_rig import PEAKS, Rig, point_cell

from client.engines.cell import OFFLINE, PointCell
from client.engines.variant import Variant
from client.report import main
from client.results.page.offline_charts import offline_charts
from client.results.page.sources import read_sources
from client.sweeping.cell import Status
from client.sweeping.state import State

NONE, INT8 = Variant("loadstone", "none", "flash"), Variant("loadstone", "int8", "flash")
THEIRS = Variant("transformers", "float32", "auto")
HOST = {"cpu": "Abacus", "cores": 2, "platform": "Wood", "python": "3", "loadstone": "0"}


def ran(variant: Variant, batch: int, speed: float, turn: int = 1, **more) -> PointCell:
    """A point with a known decode speed."""
    figures = {"decode_throughput": speed, "input_throughput": speed, "roofline_fraction": 0.4}
    return point_cell(variant, batch, [(1.0, 0.1)], turn=turn, figures=figures, **more)


def write_offline(folder: Path, cells: list[PointCell], preset: str = "decode-step") -> Path:
    """The state file of a run with these points."""
    by_name = {cell.setting.name: cell for cell in cells}
    started, settings = "2026-01-31T12:00:00", {"preset": preset}
    State(OFFLINE, "x", started, settings, HOST, PEAKS, tuple(by_name), by_name).save(folder)
    return folder / OFFLINE.file


def write_quality(folder: Path, weights: str, kv_cache: str, perplexity: float | None) -> Path:
    """A record as `python -m client.quality` keeps it, as far as it matters here."""
    path = folder / f"{weights}-kv-{kv_cache}.json"
    record = {
        "format": "loadstone-quality-1",
        "model_id": "m",
        "weights": weights,
        "kv_cache": kv_cache,
        "engine": None,
        "perplexity": None if perplexity is None else {"perplexity": perplexity},
        "humaneval": {"pass_at": {"1": 0.1}} if weights == "int8" else None,
    }
    path.write_text(json.dumps(record))
    return path


def charts_of(*paths: Path):
    """Charts of the only run, by name."""
    sources = read_sources(paths)
    (offline,) = sources.offlines
    return {chart.name: chart for chart in offline_charts(0, offline, sources.qualities)}


def test_lines_are_medians_over_rounds_and_end_where_memory_did(tmp_path):
    cells = [
        ran(NONE, 1, 10.0),
        ran(NONE, 8, 60.0),
        ran(NONE, 8, 90.0, turn=2),
        ran(NONE, 8, 70.0, turn=3),
        ran(THEIRS, 1, 5.0),
        point_cell(THEIRS, 8, status=Status.OOM, reason="<b>no memory</b>"),
    ]
    (chart,) = charts_of(write_offline(tmp_path, cells)).values()
    ours, theirs = chart.traces
    assert (ours["x"], ours["y"]) == ([1.0, 8.0], [10.0, 70.0])
    assert (theirs["x"], theirs["y"]) == ([1.0], [5.0])
    assert chart.title == "m: decode tokens/s over batch size"


def test_contexts_are_an_axis_where_there_are_several(tmp_path):
    cells = [
        ran(NONE, batch, 10.0 * batch / context, context=context)
        for batch in (1, 2)
        for context in (512, 1024)
    ]
    charts = charts_of(write_offline(tmp_path, cells, "uncached-forward"))
    assert [chart.title for chart in charts.values()] == [
        f"m: tokens read/s over context, tokens, batch {batch}" for batch in (1, 2)
    ]
    assert all(chart.traces[0]["x"] == [512.0, 1024.0] for chart in charts.values())


def test_speed_against_quality_takes_the_kv_cache_that_goes_with_the_weights(tmp_path):
    run = write_offline(tmp_path, [ran(NONE, 8, 60.0), ran(INT8, 8, 90.0), ran(INT8, 1, 20.0)])
    qualities = [
        write_quality(tmp_path, "none", "none", 21.2),
        write_quality(tmp_path, "int8", "none", 21.3),
        write_quality(tmp_path, "int8", "int8", 21.5),
        write_quality(tmp_path, "nf4", "none", 25.0),
    ]
    charts = charts_of(run, *qualities)
    assert set(charts) == {"offline-0-0-9", "quality-0-0-perplexity", "quality-0-0-pass"}
    (trace,) = charts["quality-0-0-perplexity"].traces
    assert (trace["x"], trace["y"], trace["text"]) == ([60.0, 90.0], [21.2, 21.5], ["none", "int8"])
    assert charts["quality-0-0-pass"].traces[0]["y"] == [0.1]


def test_the_command_makes_its_page_and_the_browser_draws_it(tmp_path):
    rig = Rig(tmp_path)
    quality = write_quality(tmp_path, "none", "none", 21.2)
    record = json.loads(quality.read_text()) | {"model_id": "tiny"}
    quality.write_text(json.dumps(record))
    page = tmp_path / "page.html"
    done = rig.run(
        *("--preset", "generate", "--quantize", "none,absent", "--batch-sizes", "1,4"),
        *("--quality", str(quality), "--plot", str(page)),
    )
    assert done.status == 0, done.err
    assert f"page: {page}" in done.err
    shown = open_page(page)
    assert shown.errors == ""
    assert set(shown.charts) == {"offline-0-0-3", "quality-0-0-perplexity"}
    assert all(chart.rendered for chart in shown.charts.values())
    for words in ("Points: run/offline", "loadstone none flash", "no such library", "unavailable"):
        assert words in shown.text, words
    # The page of a folder is the same but for quality.
    assert main([str(rig.out), "-o", str(tmp_path / "other.html")]) == 0
    assert main([str(quality), str(tmp_path / "none.json"), "-o", str(page)]) == 2
