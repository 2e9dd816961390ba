"""Seconds of work: the roofline, the overlap of host and device, collectives."""

from dataclasses import replace

import pytest
from capacity_records import cpu
from capacity_settings import setting
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.hardware.chip import Figure
from capacity.hardware.chips import known_chips
from capacity.hardware.slice import Slice, find_slice
from capacity.timing.efficiency import IDEAL, Efficiency, Prior, efficiency_of
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.part import CACHE, WEIGHTS, Part, Work

ONE = find_slice("h100", known_chips())
EIGHT = find_slice("h100x8", known_chips())
shares = st.floats(0.05, 1.0)


def test_each_part_takes_the_longer_of_memory_and_arithmetic() -> None:
    slow_memory = Part(WEIGHTS, 3350e9, 1e12)
    slow_compute = Part(CACHE, 1e9, 2 * 989e12)
    assert step_time(Work((slow_memory,)), ONE, IDEAL).total == pytest.approx(1.0)
    assert step_time(Work((slow_compute,)), ONE, IDEAL).total == pytest.approx(2.0)
    # One after the other, not both at once.
    both = step_time(Work((slow_memory, slow_compute)), ONE, IDEAL)
    assert both.total == pytest.approx(3.0)
    assert both.memory < both.total and both.compute < both.total


def test_shares_slow_what_they_are_of() -> None:
    work = Work((Part(WEIGHTS, 3350e9), Part(CACHE, 3350e9, quantized=True)))
    half = Efficiency(weights=0.5, cache=0.25, quantized=0.5)
    assert step_time(work, ONE, half).total == pytest.approx(2 + 8)


def test_a_ring_moves_each_byte_almost_twice_over_one_direction_of_the_link() -> None:
    work = Work((Part(WEIGHTS, 0.0),), reduced=450e9, collectives=1, sharers=8)
    seconds = step_time(work, EIGHT, IDEAL).total
    assert seconds == pytest.approx(2 * 7 / 8 + EIGHT.latency)
    assert step_time(work, ONE, IDEAL).total == 0


@pytest.mark.parametrize(("overlap", "seconds"), [(1.0, 3.0), (2.0, 5**0.5), (200.0, 2.0)])
def test_overlap_goes_from_a_sum_to_the_longer(overlap: float, seconds: float) -> None:
    work = Work((Part(WEIGHTS, 3350e9),), layers=4, sequences=10)
    host = Efficiency(weights=1.0, step_s=1.0, layer_s=0.15, sequence_s=0.04, overlap=overlap)
    assert step_time(work, ONE, host).host == pytest.approx(2.0)
    assert step_time(work, ONE, host).total == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize(("ridge", "seconds"), [(1.0, 7.0), (2.0, 5.0), (200.0, 4.0)])
def test_the_ridge_goes_from_a_sum_to_the_roofline(ridge: float, seconds: float) -> None:
    work = Work((Part(WEIGHTS, 3 * 3350e9, 4 * 989e12), Part(CACHE, 0.0, 0.0)))
    soft = replace(IDEAL, ridge=ridge)
    assert step_time(work, ONE, soft).total == pytest.approx(seconds, rel=0.01)


def test_cpus_multiply_quantized_weights_in_int8() -> None:
    """Two int8 products for one of exact activations, at four times the rate."""
    base = setting(where="h100", slots=512)
    figures = {**cpu().figures, "int8_tops": Figure(0.8, "test", "2026")}
    chip = replace(cpu(), figures=figures)
    times = {}
    for scheme in ("none", "int8", "int8-dynamic"):
        on = replace(base, slice=Slice(chip, 1), compute="fp32", weights=scheme)
        times[scheme] = step_time(decode_work(on, 512, 512.0), on.slice, IDEAL).compute
    assert times["none"] == pytest.approx(2 * times["int8"], rel=0.01)
    assert times["int8"] == pytest.approx(2 * times["int8-dynamic"], rel=0.3)


def test_cpus_multiply_bfloat16_at_their_rate_for_it() -> None:
    """And read half; where there is no such rate, at that of float32."""
    base = setting(where="h100", slots=512)
    fast = {**cpu().figures, "bf16_tops": Figure(0.4, "test", "2026")}
    seconds = {}
    for name, figures in (("with", fast), ("without", cpu().figures)):
        for scheme in ("none", "bf16"):
            chip = Slice(replace(cpu(), figures=figures), 1)
            on = replace(base, slice=chip, compute="fp32", weights=scheme)
            seconds[name, scheme] = step_time(decode_work(on, 512, 512.0), chip, IDEAL)
    plain = seconds["with", "none"]
    assert seconds["with", "bf16"].compute == pytest.approx(plain.compute / 2, rel=0.01)
    assert seconds["with", "bf16"].memory < 0.6 * plain.memory
    assert seconds["without", "bf16"].compute == pytest.approx(plain.compute)


def test_accelerators_compute_in_bfloat16_anyway() -> None:
    base = setting(where="h100", slots=64)
    same = replace(base, weights="bf16")
    work, other = decode_work(base, 64, 4000.0), decode_work(same, 64, 4000.0)
    assert work == other


@settings(max_examples=40)
@given(shares, shares, shares, st.floats(0, 1e-2), st.floats(1, 5))
def test_no_efficiency_beats_the_ideal(
    weights: float, cache: float, compute: float, host: float, overlap: float
) -> None:
    base = setting(where="h100", slots=8)
    work = decode_work(base, 8, 4000.0)
    real = Efficiency(weights, 1.0, cache, 1.0, compute, 1.0, step_s=host, overlap=overlap)
    ideal = step_time(work, base.slice, IDEAL).total
    assert step_time(work, base.slice, real).total >= ideal * (1 - 1e-9)


@settings(max_examples=30)
@given(st.integers(1, 256), st.integers(1, 4096))
def test_more_sequences_and_longer_ones_never_take_less(slots: int, live: int) -> None:
    def seconds(slots: int, live: int) -> float:
        base = setting(where="h100", slots=slots)
        return float(step_time(decode_work(base, slots, slots * live), base.slice, IDEAL).total)

    assert seconds(slots, live) <= seconds(slots + 1, live)
    assert seconds(slots, live) <= seconds(slots, live + 1)


def test_a_parameter_of_a_tag_stands_in_for_the_plain_one() -> None:
    values = {"compute": 0.5, "compute@int8": 0.2, "effect@other": 9.0}
    assert efficiency_of(values, frozenset()).compute == 0.5
    tagged = efficiency_of(values, frozenset({"int8"}))
    assert (tagged.compute, tagged.effect) == (0.2, 1.0)


def test_an_effect_is_on_the_whole_time() -> None:
    work = Work((Part(WEIGHTS, 3350e9),))
    assert step_time(work, ONE, replace(IDEAL, effect=1.5)).total == pytest.approx(1.5)


def test_a_prior_is_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Prior(0.0, 0.1)
