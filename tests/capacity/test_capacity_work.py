"""Bytes and FLOPs of a step, against formulas written out here."""

from dataclasses import replace

import numpy as np
import pytest
from capacity_settings import setting

from capacity.work.decode import decode_work, dispatch_work, prefill_work
from capacity.work.forward import Forward, forward_memory, forward_work
from capacity.work.part import CACHE, WEIGHTS
from capacity.work.reading import positions_read
from capacity.work.setting import Setting
from capacity.work.software import SOFTWARE
from server.models.catalogue import catalogue

_AMOUNTS = ("bytes", "flops")


def part(work, kind: str) -> tuple[float, ...]:
    """Bytes and FLOPs of a kind."""
    chosen = [each for each in work.parts if each.kind == kind]
    return tuple(
        sum(each.times * float(np.sum(getattr(each, what))) for each in chosen) for what in _AMOUNTS
    )


def on_cpu(base: Setting) -> Setting:
    """The same on a chip that is called a CPU."""
    return replace(base, slice=replace(base.slice, chip=replace(base.slice.chip, kind="cpu")))


def llama2_7b_products() -> int:
    """Numbers in its matrices, from its config."""
    return 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 32000 * 4096


def test_a_decode_step_reads_each_weight_once_and_what_it_is_told_of_the_cache() -> None:
    work = decode_work(setting(where="v5e-1", slots=16), 16, 16 * 300)
    assert part(work, WEIGHTS) == (2 * llama2_7b_products(), 2 * 16 * llama2_7b_products())
    # Keys and values of 32 layers, 32 heads of 128, 16 bits.
    assert part(work, CACHE)[0] == 16 * 300 * 2 * 32 * 32 * 128 * 2
    assert part(work, CACHE)[1] == 4 * 16 * 300 * 32 * 32 * 128
    assert work.collectives == 0


def test_jetstream_reads_the_whole_cache_whatever_lives() -> None:
    whole = setting(slots=96, cache_length=2048, software=SOFTWARE["jetstream"])
    assert positions_read(whole, 10, 10) == positions_read(whole, 96 * 2048, 2048) == 96 * 2048


@pytest.mark.parametrize(
    ("longest", "span"), [(1, 128), (128, 128), (129, 256), (1100, 2000), (2000, 2000)]
)
def test_our_server_reads_of_every_slot_the_span_that_holds_the_longest(
    longest: int, span: int
) -> None:
    ours = setting(slots=96, cache_length=2000)
    assert positions_read(ours, 1, longest) == 96 * span
    both = positions_read(ours, np.array([1, 1]), np.array([longest, 300]))
    assert list(both) == [96 * span, 96 * 512]


def test_on_cpus_our_kernel_stops_at_the_end_of_each_sequence() -> None:
    assert positions_read(on_cpu(setting(where="h100", slots=4)), 700, 300) == 700


@pytest.mark.parametrize(
    ("model", "skips"), [("llama2-7b", True), ("qwen2.5-3b", True), ("opt-6.7b", False)]
)
def test_on_cpus_idle_rows_cost_nothing_where_norms_have_no_bias(model: str, skips: bool) -> None:
    few, many = (
        decode_work(on_cpu(setting(model, "h100", slots=slots)), 1, 10) for slots in (1, 64)
    )
    assert (part(few, WEIGHTS)[1] == part(many, WEIGHTS)[1]) is skips


def test_the_chunks_of_a_long_prompt_go_through_the_whole_of_a_slot() -> None:
    base = setting(where="v5e-1", chunk=256, cache_length=1024)
    each = 4 * 32 * 32 * 128  # FLOPs of a query and a key
    _, once = part(prefill_work(base, [256]), CACHE)
    _, twice = part(prefill_work(base, [512]), CACHE)
    assert once == each * 256 * 128
    assert twice == once + each * 256 * 1024
    alone = dispatch_work(base, 1, 256, [(0, 256)])
    later = dispatch_work(base, 1, 256, [(256, 100)])
    assert part(alone, CACHE)[1] == once
    assert part(later, CACHE)[1] == each * 256 * 1024
    read, stored = part(later, CACHE)[0], part(alone, CACHE)[0] / 256
    assert read == stored * (256 + 1024)


def test_sharing_a_model_splits_its_bytes_and_adds_sums_over_the_chips() -> None:
    one, eight = (
        decode_work(setting(where=where, slots=8), 8, 800.0) for where in ("v5e-1", "v5e-8")
    )
    assert part(eight, WEIGHTS)[0] == part(one, WEIGHTS)[0] / 8
    assert part(eight, CACHE)[0] == part(one, CACHE)[0] / 8
    assert (eight.collectives, eight.sharers) == (64, 8)
    assert eight.reduced == 2 * 32 * 8 * 4096 * 2


def test_sharing_the_batch_needs_no_sums() -> None:
    by_batch = decode_work(setting(slots=8, sharding="batch"), 8, 800.0)
    assert by_batch.collectives == 0
    assert part(by_batch, WEIGHTS)[1] == 2 * 1 * llama2_7b_products()


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("nf4", 4.5), ("int4", 4.25)])
def test_quantized_weights_are_read_as_stored(scheme: str, bits: float) -> None:
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    work = decode_work(setting(where="v5e-1", weights=scheme), 1, 1)
    read = next(each for each in work.parts if each.kind == WEIGHTS)
    assert read.quantized
    assert 8 * read.bytes / layers == pytest.approx(bits, rel=0.01)


def test_bitsandbytes_writes_four_bits_out_for_several_rows() -> None:
    def read(slots: int) -> float:
        torch = setting(where="h100", weights="nf4", slots=slots, software=SOFTWARE["torch"])
        return part(decode_work(torch, slots, slots * 100.0), WEIGHTS)[0]

    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert read(8) - read(1) == 2 * 2 * layers


def test_prefill_is_attention_over_half_of_the_square() -> None:
    work = prefill_work(setting(where="v5e-1", chunk=4096, cache_length=4096), [1000])
    _, attention = part(work, CACHE)
    assert attention == 4 * 1000 * 500 * 32 * 32 * 128
    # One token goes through the head.
    layers = llama2_7b_products() - 32000 * 4096
    assert part(work, WEIGHTS)[1] == 2 * 1000 * layers + 2 * 32000 * 4096


def test_arrays_give_work_for_each_step() -> None:
    base = setting(slots=4)
    active, live = np.array([1.0, 4.0]), np.array([10.0, 900.0])
    both = decode_work(base, active, live)
    for index in range(2):
        one = decode_work(base, active[index], live[index])
        assert part(one, CACHE)[0] == next(p for p in both.parts if p.kind == CACHE).bytes[index]


@pytest.mark.parametrize("name", ["clm-1.1b", "opt-6.7b", "llama2-7b", "starcoder2-7b"])
def test_a_forward_computes_two_flops_a_weight_and_token(name: str) -> None:
    model = catalogue()[name]
    forward = Forward(model, 2, 512)
    _, products = part(forward_work(forward), WEIGHTS)
    _, attention = part(forward_work(forward), CACHE)
    # All parameters but tables, norms and biases; the head once.
    matrices = model.parameters - model.vocab * model.hidden * (0 if model.tied else 1)
    assert products == pytest.approx(2 * 1024 * matrices, rel=0.01)
    assert attention == 4 * 1024 * 512 * model.heads * model.head_dim * model.layers


def test_the_memory_of_a_forward_with_loss() -> None:
    model = catalogue()["clm-1.1b"]
    logits = 16 * 1024 * 49152 * 4
    alone = forward_memory(Forward(model, 16, 1024))
    assert alone == 2 * model.parameters + 2 * logits
    mlp = 32 * 3 * 1536 * 5376
    shared = forward_memory(Forward(model, 16, 1024, mlp_split=2), kept=True)
    assert shared == 2 * (model.parameters - mlp / 2) + 2.5 * logits


def test_the_counts_of_a_layer_norm_are_below_those_of_a_written_out_rms_norm() -> None:
    plain, written = (
        forward_work(Forward(catalogue()[name], 1, 1024)) for name in ("opt-1.3b", "clm-1.1b")
    )
    assert len(plain.parts) < len(written.parts)
