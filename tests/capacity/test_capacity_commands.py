"""The command line: what it prints, what it refuses, and that it needs no JAX."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from capacity_records import write_sweep

from capacity.__main__ import BAD_INPUT, COMMANDS, FOUND, OK, main

REPOSITORY = Path(__file__).parents[2]
V5E = ("--model", "llama2-7b", "--slice", "v5e-8")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Status, output and errors."""
    status = main(words)
    seen = capsys.readouterr()
    return status, seen.out, seen.err


def test_nothing_here_imports_jax() -> None:
    code = (
        "import sys; from capacity.__main__ import main; "
        "main(['fit', '--model', 'llama2-7b', '--slice', 'v5e-8']); "
        "main(['estimate', '--model', 'llama2-7b', '--slice', 'v5e-8', '--quantize', 'int8']); "
        "assert 'jax' not in sys.modules and 'server.engine' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "v5e-8" in done.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert "--chips" in capsys.readouterr().out


def test_chips(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "chips")
    assert status == OK and "| v5e |" in out and "v5p-8" in out
    _, out, _ = run(capsys, "chips", "v5e")
    assert "v5e-8 (2x4)" in out and "Google Cloud TPU documentation" in out


def test_fit_prints_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*V5E, "--quantize", "none,int8", "--cache-length", "1024,2048", "--sharding", "model")
    status, out, _ = run(capsys, "fit", *words)
    assert status == OK
    assert out.count("| v5e-8 |") == 4
    assert "| v5e-8 | none | none | model | 2,048 | 103 |" in out
    _, out, _ = run(capsys, "fit", *V5E, "--batch-size", "96,160", "--json")
    cells = json.loads(out)
    assert [cell["fits"] for cell in cells] == [True, False]
    assert {cell["largest_batch"] for cell in cells} == {103}


def test_fit_says_what_fits_on_this_kind_of_host(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A limit of memory, less what is taken already, is a chip of the user's."""
    chips = tmp_path / "chips.toml"
    chips.write_text(
        '[box]\nkind = "cpu"\nmemory_gib = 3\nusable_memory_gib = 2.75\nbandwidth_gbps = 10\n'
    )
    words = ("fit", "--model", "smollm2-135m", "--slice", "box", "--chips", str(chips), "--json")
    kept, all_of_it = (
        json.loads(run(capsys, *words, *more)[1])[0] for more in ((), ("--headroom", "0"))
    )
    assert all_of_it["limit_bytes"] == 2.75 * 2**30
    assert kept["limit_bytes"] == pytest.approx(0.95 * 2.75 * 2**30)
    assert 0 < kept["largest_batch"] < all_of_it["largest_batch"]
    parts = ("weight_bytes", "cache_bytes", "temporary_bytes", "program_bytes")
    taken = sum(all_of_it[part] for part in parts)
    slot = all_of_it["cache_bytes"] / all_of_it["batch_size"]
    assert taken <= all_of_it["limit_bytes"] < taken + 1.1 * slot
    assert all_of_it["program_bytes"] > 0
    status, _, err = run(capsys, *words, "--headroom", "1")
    assert status == BAD_INPUT and "from 0 up to 1" in err


def test_fit_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'loadstone[report]'")
    path = tmp_path / "fit.html"
    status, _, _ = run(capsys, "fit", *V5E, "--quantize", "none,int8", "--plot", str(path))
    text = path.read_text()
    assert status == OK and "llama2-7b" in text and "<script" in text
    assert "<script src=" not in text
    status, _, err = run(capsys, "fit", *V5E, "--plot", str(tmp_path / "no" / "fit.html"))
    assert status == BAD_INPUT and "cannot write" in err


def test_estimate_all_at_once_and_at_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "estimate", *V5E, "--quantize", "int8", "--lengths", "200:300")
    assert status == OK
    for name in ("Prefill", "Decode step", "TTFT", "TPOT", "Output tokens/s", "Energy", "Price"):
        assert f"| {name}" in out
    assert "priors alone" in out
    words = ("--batch-size", "32", "--rate", "2", "--lengths", "200:300", "--json")
    _, out, _ = run(capsys, "estimate", *V5E, *words)
    found = json.loads(out)
    assert found["tokens_per_s"]["value"] == pytest.approx(600)
    assert found["tpot_ms"]["low"] < found["tpot_ms"]["value"] < found["tpot_ms"]["high"]
    assert found["dollars_per_million_tokens"] == pytest.approx(9.6 / 3600 / 600 * 1e6)


def test_forward_makes_what_the_client_compares_with(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("forward", "--model", "opt-1.3b,clm-60m", "--slice", "a5000")
    status, out, _ = run(capsys, *words)
    assert status == OK and out.count("\n| ") == 4
    found = json.loads(run(capsys, *words, "--json")[1])
    assert found["opt-1.3b"].keys() == {"runtime_ms", "memory_gib"}
    # Page 004 measured 5.53 GiB.
    assert found["opt-1.3b"]["memory_gib"] == pytest.approx(5.53, rel=0.005)
    fused = json.loads(run(capsys, *words, "--json", "--software", "loadstone")[1])
    assert fused["clm-60m"]["runtime_ms"] < found["clm-60m"]["runtime_ms"]
    assert run(capsys, "forward", "--model", "clm-60m", "--slice", "a5000x8")[0] == BAD_INPUT


def test_a_service_level_that_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("estimate", *V5E, "--batch-size", "64", "--rate", "5", "--lengths", "200:300")
    assert run(capsys, *base, "--goodput", "ttft:5000", "tpot:500")[0] == OK
    status, out, _ = run(capsys, *base, "--goodput", "ttft:5000", "tpot:3")
    assert status == FOUND and "Service level missed: tpot" in out


def test_an_interval_that_says_nothing_is_said_to_be_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("estimate", *V5E, "--quantize", "int8")
    _, out, _ = run(capsys, *words, "--rate", "1", "--json")
    most = json.loads(out)["most_requests_per_s"]["value"]
    for share, known in ((0.5, True), (0.995, False)):
        _, out, _ = run(capsys, *words, "--rate", str(share * most))
        assert ("TTFT" in out and "not known: this rate" not in out) is known
        _, out, _ = run(capsys, *words, "--rate", str(share * most), "--json")
        assert (json.loads(out)["ttft_ms"]["high"] is not None) is known


def test_calibrate_keeps_what_estimate_uses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sweep = write_sweep(tmp_path / "sweep", schemes=("none", "int8"), noise=0.03)
    kept = tmp_path / "kept.json"
    status, out, _ = run(capsys, "calibrate", str(sweep.parent), "--out", str(kept))
    assert status == OK
    assert out.count("| TPOT |") == 8
    assert "Each run left out in turn: median" in out and "| compute@int8 |" in out
    chips = tmp_path / "chips.toml"
    chips.write_text("[cpu]\nkind = 'cpu'\nmemory_gib = 16\nbandwidth_gbps = 30\nfp32_tops = 0.2\n")
    words = ("--model", "smollm2-135m", "--slice", "cpu", "--cache-length", "256")
    words += ("--batch-size", "8", "--lengths", "100:40", "--requests", "24", "--json")
    words += ("--chips", str(chips))

    def width(*more: str) -> float:
        status, out, err = run(capsys, "estimate", *words, *more)
        assert status == OK, err
        tokens = json.loads(out)["tokens_per_s"]
        return tokens["high"] / tokens["low"]

    assert width("--calibration", str(kept)) < 0.7 * width()
    status, out, _ = run(capsys, "table", str(sweep))
    assert status == OK and "Runtime (ms): estimated | Runtime (ms): measured" in out
    assert run(capsys, "check", str(sweep))[0] == OK
    other = ("--calibration", str(kept), "--software", "torch")
    status, _, err = run(capsys, "estimate", *words, *other)
    assert status == BAD_INPUT and "is of loadstone" in err


def test_repeats_are_left_out_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One of the runs is wild: its repeat, as wild, must not predict it. Both are one."""
    folders = [write_sweep(tmp_path / name).parent for name in ("one", "two")]
    for folder in folders:
        path = folder / "sweep.json"
        document = json.loads(path.read_text())
        document["cells"][0]["figures"]["output_throughput"] /= 3
        path.write_text(json.dumps(document))
    _, out, _ = run(capsys, "calibrate", *map(str, folders))
    assert out.count("| TPOT |") == out.count("(mean of 2)") == 4
    largest = float(out.split("largest ")[1].split("%")[0])
    assert largest > 100


def test_a_published_page_calibrates_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "a5000.json"
    group = ("--page", "004", "--group", "a5000, one card")
    status, out, _ = run(capsys, "calibrate", *group, "--out", str(kept))
    assert status == OK and "Left out one at a time" in out
    words = ("forward", "--model", "clm-1.1b", "--slice", "a6000", "--calibration", str(kept))
    found = json.loads(run(capsys, *words, "--json")[1])
    # Measured 600.65 ms; from the other card by the datasheets' ratio.
    assert found["clm-1.1b"]["runtime_ms"] == pytest.approx(600.65, rel=0.07)


def test_check_finds_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", "--page", "002")
    assert status == FOUND
    assert "002-007 (gemma-2b" in out and "cannot fit" in out
    assert "13 rows: 1 cannot fit" in out
    assert run(capsys, "check")[1].endswith(
        "300 rows: 9 contradicts itself, 1 cannot fit, 2 above the roofline\n"
    )


def test_table_of_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "table", "--page", "bloom", "--definition", "page")
    assert status == OK
    assert "Estimated (msec/token)" in out and "### HF (bf16)" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fit", "--model", "llama2-7c", "--slice", "v5e-8"), "llama2-7b"),
        (("fit", "--model", "llama2-7b", "--slice", "v5e-9"), "v5e-8 (2x4)"),
        (("fit", "--model", "llama2-7b", "--slice", "v9"), "did you mean v7"),
        (("fit", *V5E, "--quantize", "int7"), "nf4"),
        (("fit", *V5E, "--sharding", "rows"), "model, batch"),
        (("fit", *V5E, "--cache-length", "1k"), "whole numbers"),
        (("fit", *V5E, "--batch-size", "0"), "1 or more"),
        (("fit", *V5E, "--sharding", "batch", "--batch-size", "12"), "a multiple of 8"),
        (("fit", "--model", "llama3-70b", "--slice", "t4"), "more chips"),
        (("estimate", "--model", "llama3-70b", "--slice", "v5e-1"), "no batch fits"),
        (("estimate", *V5E, "--rate", "-1"), "above 0"),
        (("estimate", *V5E, "--rate", "1e6"), "the most that"),
        (("estimate", *V5E, "--requests", "0"), "1 or more"),
        (("estimate", *V5E, "--goodput", "tpot:0.5"), "impossible"),
        (("estimate", *V5E, "--goodput", "e2el:5"), "ttft, tpot"),
        (("estimate", *V5E, "--lengths", "ten"), "PROMPT:ANSWER"),
        (("estimate", *V5E, "--calibration", "absent.json"), "cannot read"),
        (("estimate", *V5E, "--chips", "absent.toml"), "cannot read"),
        (("calibrate", "absent.json"), "cannot read"),
        (("calibrate",), "give records"),
        (("calibrate", "--page", "000"), "HF (bf16)"),
        (("calibrate", "--page", "004", "--group", "v4"), "a5000, one card"),
        (("table",), "give --page"),
        (("table", "--page", "007"), "004"),
        (("table", "--page", "004", "x.json"), "not both"),
        (("check", "--page", "x"), "bloom"),
    ],
)
def test_bad_input_is_one_line_that_says_what_would_work(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    status, _, err = run(capsys, *words)
    assert status == BAD_INPUT
    assert err.startswith("error: ") and err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("words", [("fit",), ("nonsense",), (), ("fit", *V5E, "--nonsense")])
def test_a_wrong_command_line_exits_with_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == BAD_INPUT
    assert capsys.readouterr().err.startswith("error: ")


SIMULATE = ("simulate", *V5E, "--quantize", "int8", "--requests", "400", "--batch-size", "64")
PLAN = ("plan", "--model", "llama2-7b", "--slice", "v5e-4,v5e-1,v6e-1", "--batch-size", "16,32")


def test_simulate_prints_percentiles_of_each_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SIMULATE, "--rate", "25", "--replicas", "1,2", "--goodput", "ttft:900", "tpot:60")
    status, out, _ = run(capsys, *words)
    assert status == OK
    assert "| Queue wait (ms) |" in out and "400 requests, 25 requests/s, poisson" in out
    _, out, _ = run(capsys, *words, "--json")
    one, two = json.loads(out)
    assert (one["replicas"], two["chips"]) == (1, 16)
    assert one["completed"] == 400 and one["p99_ttft_ms"] > two["p50_ttft_ms"] > 0
    status, out, _ = run(capsys, *SIMULATE, "--rate", "25", "--goodput", "tpot:5")
    assert status == FOUND and "service level missed" in out


def test_simulate_replays_a_trace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 40 * at, "input_length": 90, "output_length": 20} for at in range(30)]
    trace.write_text("\n".join(map(json.dumps, rows)))
    status, out, _ = run(capsys, "simulate", *V5E, "--trace", str(trace), "--trace-speed", "2")
    assert status == OK and "30 requests of trace.jsonl" in out


def test_plan_ranks_and_says_why_not_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*PLAN, "--rate", "15", "--goodput", "ttft:800", "tpot:60", "--top", "2")
    status, out, _ = run(capsys, *words)
    assert status == OK
    assert "| 1 | v" in out and "does not fit" in out and "GiB of 15.0" in out
    status, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    first, second = found["fleets"]
    assert first["price"] <= second["price"] and first["p99_ttft_ms"] < 800
    assert found["not_on_the_list"]


def test_bad_input_of_planning_says_what_would_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n")
    rate = ("--rate", "5")
    cases = (
        ((*PLAN, *rate, "--chip", "v9"), "chip 'v9' is not known"),
        (("plan", "--model", "llama2-7b", *rate, "--slice", "v5e-7"), "v5e-4 (2x2)"),
        (("plan", "--model", "llama2-70b", *rate, "--slice", "v5e-1"), "fits none of these"),
        ((*PLAN, *rate, "--goodput", "tpot:0.01"), "ms at the least"),
        ((*PLAN, "--rate", "-3"), "above 0"),
        ((*PLAN, "--rate", "inf"), "a plan is for traffic that goes on"),
        ((*PLAN, "--trace", str(broken)), "line 2"),
        ((*PLAN, "--trace", str(tmp_path)), "cannot read"),
        ((*PLAN, *rate, "--order", "beauty"), "price, energy, chips"),
        ((*PLAN, *rate, "--load", "1.5"), "--load"),
        ((*PLAN,), "--trace FILE or --rate"),
        ((*SIMULATE, "--rate", "0"), "above 0"),
        ((*SIMULATE, *rate, "--goodput", "tpot:0.01"), "impossible"),
        ((*SIMULATE, *rate, "--latency", "p99_itl:5"), "p99_ttft:800"),
        ((*SIMULATE, *rate, "--replicas", "0"), "--replicas"),
        ((*SIMULATE, *rate, "--software", "torch"), "only loadstone's own scheduler"),
        ((*SIMULATE, *rate, "--trace", str(broken)), "one of them"),
        ((*SIMULATE, *rate, "--arrivals", "sometimes"), "constant, poisson, gamma"),
        ((*SIMULATE, *rate, "--html", str(tmp_path / "no" / "x.html")), "cannot write"),
    )
    for words, wanted in cases:
        status, _, errors = run(capsys, *words)
        assert (status, wanted in errors) == (BAD_INPUT, True), (words, errors)
