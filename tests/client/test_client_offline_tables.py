"""Tables of the in-process benchmark from points with known times: our figures and the pages'.

Page figures are cited from the published tables: bigcode-inference-benchmark's README (BLOOM, A100
80GB), bitsandbytes' benchmarking README (v0.45), a StarCoder2 project page (A100 40GB) and
TorchCAP's benchmark page.
"""

import pytest
from offline_rig import FACTS, PEAKS, SIZES, measuring, point_cell, rows_of, view_of

from client.engines import decode_table, definitions, forward_tables, generate_tables, loss_table
from client.engines.beside import load_estimates
from client.engines.cell import OFFLINE
from client.engines.entry import Entry, gather
from client.engines.limits import pass_flops, share
from client.engines.showing import Showing
from client.engines.tables import render
from client.engines.variant import Variant
from client.errors import UsageError
from client.sweeping.cell import Status
from client.sweeping.state import State

OURS, INT8 = Variant("loadstone", "none", "flash"), Variant("loadstone", "int8", "flash")
FP32 = Variant("transformers", "float32", "auto")
BF16 = Variant("transformers", "bfloat16", "auto")
PAGE = Showing(definition="page")


def generating(**changes):
    values = {"quantize": ("none",), "transformers_kinds": ("float32", "bfloat16"), **changes}
    return measuring("generate", **values)


# -- generate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "throughput", "shown", "latency"),
    [
        # HF (bf16) of the page: throughput | msec/token, and latency in seconds.
        (1, 41.00, "41.00 \\| 24.39", "2.44"),
        (8, 317.56, "317.56 \\| 3.15", "2.52"),
        (256, 6578.06, "6578.06 \\| 0.15", "3.89"),
        (1792, 7747.92, "7747.92 \\| 0.13", "23.13"),
    ],
)
def test_the_pages_rows_of_generation_come_out_as_printed(batch, throughput, shown, latency):
    seconds = batch * 100 / throughput
    cells = [
        point_cell(OURS, batch, [(seconds, 0.1)] * 5),
        point_cell(FP32, batch, status=Status.OOM, reason="no memory"),
        point_cell(BF16, batch, [(seconds, 0.1)] * 5),
    ]
    what = generating(batch_sizes=(batch,))
    first, second = rows_of(generate_tables.render(view_of(cells, what, PAGE)), str(batch))
    assert first[2:] == ["oom", shown]
    assert second[1:] == [latency, "oom", latency]


def test_generation_in_our_units_with_ratios_and_failures():
    cells = [
        point_cell(OURS, 8, [(2.0, 0.5), (2.5, 0.5)]),
        point_cell(FP32, 8, [(5.0, 1.0)]),
        point_cell(BF16, 8, [(4.5, 1.0)]),
        point_cell(OURS, 16, [(4.0, 0.5)]),
        point_cell(FP32, 16, status=Status.REFUSED, reason="too large"),
    ]
    what = generating(batch_sizes=(8, 16, 32))
    lines = generate_tables.render(view_of(cells, what))
    eight, sixteen = rows_of(lines, "8"), rows_of(lines, "16")
    # 8 x 100 tokens in a mean of 2.25 s, against 4.5 s.
    assert eight[0] == ["8", "355.6", "160.0", "177.8", "2.00x"]
    assert sixteen[0] == ["16", "400.0", "refused", "", "-"]
    assert eight[1][1:] == ["2.250", "5.000", "4.500"]
    assert eight[2][1] == f"{1e3 * 1.75 / 99:.2f}"
    assert eight[3][1:] == ["500.0", "1,000.0", "1,000.0"]
    assert eight[4][1] == "320.0-400.0"
    assert eight[5][1] == "3.00"
    assert eight[7][1] == "5.0 (2.0 + 1.5)"
    assert not rows_of(lines, "32")


def test_rows_end_with_the_first_batch_that_nothing_takes():
    cells = [
        point_cell(variant, batch, status=Status.OOM, reason="x")
        for batch in (8, 16)
        for variant in (OURS, FP32, BF16)
    ]
    view = view_of(cells, generating(batch_sizes=(8, 16)))
    assert view.batches("m", 9) == [8]


# -- decode-step -----------------------------------------------------------------------------------


def decoding(step: float, first: float = 0.2) -> list[tuple[float, float]]:
    """A run of 100 tokens with a mean step."""
    return [(first + 99 * step, first)]


@pytest.mark.parametrize(
    ("batch", "step", "rate", "before", "improvement", "rate_before", "ratio"),
    [
        # T4, Qwen 2.5 3B, INT8 and NF4; H100, Llama 3.1 8B, NF4.
        (1, 0.0902, "11.08", 0.1609, "1.44", "6.21", "1.784x"),
        (32, 0.0943, "339.21", 0.1640, "1.42", "195.14", "1.738x"),
        (8, 0.0476, "168.05", 0.0551, "1.14", "145.13", "1.158x"),
    ],
)
def test_the_pages_rows_of_decoding_come_out_as_printed(
    batch, step, rate, before, improvement, rate_before, ratio
):
    # What goes in are latencies of four digits, so what comes out differs in its last ones.
    digits = 1e-4 / step
    what = measuring(
        "decode-step", engines=("loadstone",), quantize=("int8",), batch_sizes=(batch,)
    )
    now = [point_cell(INT8, batch, decoding(step), context=64)]
    earlier = gather([point_cell(INT8, batch, decoding(before), context=64)])
    lines = decode_table.render(view_of(now, what, PAGE, earlier=earlier))
    ((_, shown_batch, *shown),) = rows_of(lines, "loadstone int8")
    assert shown_batch == str(batch)
    assert (shown[0], shown[2]) == (f"{step:.4f}", f"{before:.4f}")
    assert float(shown[3]) == pytest.approx(float(improvement), abs=0.011)
    assert float(shown[1]) == pytest.approx(float(rate), rel=digits, abs=0.011)
    assert float(shown[4]) == pytest.approx(float(rate_before), rel=digits, abs=0.011)
    assert float(shown[5][:-1]) == pytest.approx(float(ratio[:-1]), rel=2 * digits)


def test_decoding_in_our_units_leaves_prefill_out():
    what = measuring(
        "decode-step", quantize=("none",), transformers_kinds=("bfloat16",), batch_sizes=(8,)
    )
    cells = [
        point_cell(OURS, 8, [*decoding(0.010, 0.2), *decoding(0.020, 9.0)], context=64),
        point_cell(BF16, 8, decoding(0.030), context=64),
    ]
    earlier = gather([point_cell(OURS, 8, decoding(0.045), context=64)])
    lines = decode_table.render(view_of(cells, what, earlier=earlier))
    (ours,), (theirs,) = rows_of(lines, "loadstone none"), rows_of(lines, "transformers bfloat16")
    assert ours[1:5] == ["8", "15.00", "533.3", "10.00-20.00"]
    assert ours[5] == "2.00x" and theirs[5] == "-"
    assert ours[6] == "4,600.0"
    assert ours[10:] == ["45.00", "177.8", "3.00x"]
    assert theirs[10:] == ["-", "-", "-"]
    # 100,000 bytes of weights and 8 rows of 114 positions over 1 GB/s is the bound.
    moved = 100_000 + 8 * 114 * 512
    assert ours[8] == f"{moved / 1e9 / 0.015:.0%} m"


# -- uncached-forward ------------------------------------------------------------------------------

REFERENCE = Variant("loadstone", "none", "reference")


def passing(**changes):
    values = {
        "engines": ("loadstone",),
        "quantize": ("none",),
        "batch_sizes": (2, 4),
        "contexts": (4096, 8192),
        **changes,
    }
    return measuring("uncached-forward", **values)


def test_the_pages_grids_come_out_as_printed():
    seconds = {
        (REFERENCE, 2, 4096): 11.05,
        (REFERENCE, 2, 8192): 22.75,
        (REFERENCE, 4, 4096): 25.71,
        (OURS, 2, 4096): 9.87,
        (OURS, 2, 8192): 19.95,
        (OURS, 4, 4096): 19.64,
    }
    cells = [
        point_cell(variant, batch, [(value, None)], context=context)
        for (variant, batch, context), value in seconds.items()
    ]
    cells += [
        point_cell(each, 4, context=8192, status=Status.OOM, reason="x")
        for each in (REFERENCE, OURS)
    ]
    lines = forward_tables.render(view_of(cells, passing(), PAGE))
    two, four = rows_of(lines, "**2**"), rows_of(lines, "**4**")
    assert two == [
        ["**2**", "11.05", "22.75"],
        ["**2**", "9.87", "19.95"],
        ["**2**", "1.12", "1.14"],
    ]
    assert four == [["**4**", "25.71", "OOM"], ["**4**", "19.64", "OOM"], ["**4**", "1.31", "OOM"]]


def test_passes_in_our_units():
    cells = [
        point_cell(REFERENCE, 2, [(3.0, None), (5.0, None)], context=4096),
        point_cell(OURS, 2, [(2.0, None)], context=4096),
    ]
    lines = forward_tables.render(view_of(cells, passing(batch_sizes=(2,), contexts=(4096,))))
    row = rows_of(lines, "4,096")
    assert row[0] == ["4,096", "2", "4.000", "2.000", "2.00x"]
    assert row[1][2:] == ["3.000-5.000", "2.000-2.000"]


# -- forward-loss ----------------------------------------------------------------------------------


def scoring(**changes):
    return measuring("forward-loss", engines=("loadstone",), **changes)


def test_the_pages_row_of_a_forward_comes_out_as_printed():
    # facebook/opt-1.3b on an RTX A5000 (230 W): runtime, memory, energy, "throughput".
    memory = {"peak_bytes": round(5.53 * 2**30), "while_timed": True}
    cells = [point_cell(OURS, 16, [(0.69377, None)], context=1024, memory=memory, value=10.8)]
    showing = Showing(definition="page", tdp_watts=230.0)
    estimates = {"m": {"runtime_ms": 740.79, "memory_gib": 5.52}}
    lines = loss_table.render(view_of(cells, scoring(), showing, estimates=estimates))
    (row,) = rows_of(lines, "m")
    # The page prints -0.17% for memory, from figures with more digits.
    assert row[3:] == [
        "693.77", "740.79", "6.35%", "5.53", "5.52", "-0.18%",
        "0.010", "0.010", "6.35%", "42.34", "45.21", "6.35%",
    ]  # fmt: skip


def test_a_forward_in_our_units_tells_measured_energy_from_design_power():
    cells = [
        point_cell(OURS, 16, [(0.5, None)] * 2, context=1024, value=10.8),
        point_cell(
            INT8, 16, [(0.5, None)] * 2, context=1024, value=10.9, joules=327.68,
            energy_source="NVML",
        ),
    ]  # fmt: skip
    what = scoring(quantize=("none", "int8"))
    showing = Showing(tdp_watts=200.0)
    view = view_of(cells, what, showing, estimates={"m": {"runtime_ms": 400.0}})
    plain, int8 = rows_of(loss_table.render(view), "m")
    assert plain[4:7] == ["500.00", "400.00", "-20.00%"]
    assert plain[9:11] == ["-", "-"]
    # 200 W for 0.5 s over 16,384 tokens; 327.68 J over two runs.
    assert plain[11] == "0.0061 TDP" and int8[11] == "0.0100 measured"
    assert plain[12] == "32,768.0" and plain[14] == "10.8000"


def test_errors_by_both_conventions():
    # clm-60m on an A6000: measured 109.11 ms, estimated 76.87 ms, printed -41.93%.
    assert definitions.page_error(76.87, 109.11) == pytest.approx(-0.4194, abs=1e-4)
    assert definitions.error(76.87, 109.11) == pytest.approx(-0.2955, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "an object of models was expected"),
        ('{"m": {"runtime": 1}}', "m: runtime; known: "),
        ('{"m": 3}', "m: 3; known: "),
        ('{"m": {"runtime_ms": 0}}', "m: numbers above 0"),
    ],
)
def test_estimates_that_are_none_are_refused(tmp_path, text, message):
    path = tmp_path / "estimates.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_estimates(path)


# -- what all have in common -----------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "tokens", "window"), [(1, 1, None), (2, 7, None), (3, 9, 4)])
def test_the_arithmetic_of_a_pass_is_that_of_its_products(batch, tokens, window):
    sizes = SIZES if window is None else {**SIZES, "window": window}
    layers, table = 30_000, 256 * 32
    reach = window or tokens
    pairs = sum(min(query + 1, reach) for query in range(tokens))
    # Scores and values: heads x head size each, in every layer.
    attention = batch * pairs * 2 * (2 * 4 * 8 * 2)
    weights = 2 * layers * batch * tokens
    head = 2 * table * batch
    found = pass_flops(sizes, layers + table, batch, tokens, scored=batch)
    assert found == weights + attention + head
    untied = pass_flops({**sizes, "tied": 0}, layers + 2 * table, batch, tokens, scored=batch)
    assert untied == found


def test_no_share_of_a_roofline_that_is_another_devices():
    on_chip = point_cell(OURS, 8, [(1.0, 0.1)], facts={**FACTS, "device": "NVIDIA H100"})
    what = generating(batch_sizes=(8,))
    entry = Entry((on_chip,))
    assert share(entry, what, PEAKS, decode_alone=False) is not None
    measured = type(PEAKS)(1e9, 1e12, "measured", "given")
    assert share(entry, what, measured, decode_alone=False) is None
    unknown = point_cell(OURS, 8, [(1.0, 0.1)], facts={**FACTS, "step_weight_bytes": None})
    assert share(Entry((unknown,)), what, PEAKS, decode_alone=False) is None


def test_the_document_says_what_was_run_and_why_cells_are_empty():
    what = generating(batch_sizes=(8, 16))
    row = tuple(range(100))
    cells = [
        point_cell(OURS, 8, [(1.0, 0.1)], first_row=row[:60] + (0,) * 40),
        point_cell(FP32, 8, [(2.0, 0.1)], first_row=row),
        point_cell(BF16, 8, status=Status.UNAVAILABLE, reason="no | such library"),
        point_cell(BF16, 16, status=Status.UNAVAILABLE, reason="no | such library"),
    ]
    host = {"cpu": "Abacus", "cores": 2, "platform": "Wood", "python": "3", "loadstone": "0"}
    by_name = {cell.setting.name: cell for cell in cells}
    started = "2026-01-31T12:00:00"
    state = State(
        OFFLINE, "python -m client.offline -x", started, {}, host, PEAKS, tuple(by_name), by_name
    )
    text = render(state, view_of(cells, what, trained=frozenset({"m"})))
    for words in (
        "# generate: m",
        "- Command: `python -m client.offline -x`",
        "- Date: 2026-01-31 12:00:00; 4 of 4 points tried",
        "- Machine: Abacus, 2 cores, Wood",
        "torch 9",
        "- Prompts of 7, 4, 3, 3, 6, 8, 9, 5 tokens, 100 new tokens, greedy; 1 warm-up and 5 timed",
        "transformers bfloat16, batch 8 and 1 more: unavailable: no \\| such library",
        "equal to those of transformers float32: loadstone none 60 of 100",
        "1.0 GB/s (given)",
    ):
        assert words in text, words
