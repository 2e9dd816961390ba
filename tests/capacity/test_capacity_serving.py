"""Many requests: the schedule against a step by step one, times against an event by event one."""

import math

import numpy as np
import pytest
from capacity_settings import setting
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.serving.batch_run import batch_run, batch_throughput, prefill_seconds, time_batch
from capacity.serving.cost import datasheet_power, price_per_million
from capacity.serving.lengths import Lengths
from capacity.serving.positions import mean_positions, mean_read
from capacity.serving.schedule import schedule
from capacity.serving.steady import Server, erlang_c
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.reading import span_of
from capacity.work.software import SOFTWARE
from client.errors import UsageError
from client.sweeping.roofline import live_positions

REAL = Efficiency(0.7, 0.8, 0.6, 0.7, 0.4, 0.5, step_s=1e-3, sequence_s=1e-5, request_s=2e-3)
pairs = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=40)


def of(found: list[tuple[int, int]]) -> Lengths:
    """Pairs as lengths."""
    return Lengths(np.array([a for a, _ in found]), np.array([b for _, b in found]), "drawn")


@settings(deadline=None)
@given(pairs, st.integers(1, 9), st.integers(1, 50))
def test_the_schedule_is_that_of_slots_filled_step_by_step(
    found: list[tuple[int, int]], slots: int, kept: int
) -> None:
    plan = schedule(of(found), slots, kept)
    running: list[list[int]] = []  # [positions seen, steps left]
    waiting = list(found)
    for step in range(plan.steps):
        while waiting and len(running) < slots:
            prompt, answer = waiting.pop(0)
            if answer > 1:
                running.append([prompt, answer - 1])
        for each in running:
            each[0] += 1
            each[1] -= 1
        assert plan.active[step] == len(running)
        assert plan.live[step] == sum(min(seen, kept) for seen, _ in running)
        assert plan.longest[step] == max(min(seen, kept) for seen, _ in running)
        running = [each for each in running if each[1]]
    assert not running
    assert all(answer == 1 for _, answer in waiting)


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(1, 9))
def test_times_are_those_of_an_event_by_event_run(found: list[tuple[int, int]], slots: int) -> None:
    # Spans of 128 and 200 positions.
    base = setting(where="h100", slots=slots, cache_length=200)
    run = batch_run(base, of(found))
    reading = prefill_seconds(run.prefill, base, REAL)
    clock, first, last = 0.0, {}, {}
    running: dict[int, list[int]] = {}
    waiting = list(enumerate(found))
    while waiting or running:
        while waiting and len(running) < slots:
            index, (prompt, answer) = waiting.pop(0)
            clock += reading[index]
            first[index] = last[index] = clock
            if answer > 1:
                running[index] = [prompt, answer - 1]
        if not running:
            continue
        longest = max(min(seen + 1, 200) for seen, _ in running.values())
        read = slots * (128 if longest <= 128 else 200)
        work = decode_work(base, float(len(running)), float(read))
        clock += float(step_time(work, base.slice, REAL).total)
        for index in list(running):
            last[index] = clock
            running[index] = [running[index][0] + 1, running[index][1] - 1]
            if not running[index][1]:
                del running[index]
    times = time_batch(run, REAL)
    assert times.duration == pytest.approx(clock)
    assert times.ttft == pytest.approx([first[index] for index in range(len(found))])
    for index, (_, answer) in enumerate(found):
        expected = (last[index] - first[index]) / (answer - 1) if answer > 1 else math.nan
        assert times.tpot[index] == pytest.approx(expected, nan_ok=True)
    assert batch_throughput(run, REAL) == pytest.approx(times.throughput)


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(1, 50))
def test_live_positions_are_the_clients(found: list[tuple[int, int]], kept: int) -> None:
    theirs = live_positions(found, kept)
    if theirs is not None:
        assert mean_positions(of(found), kept) == pytest.approx(theirs)


def test_a_step_of_several_reads_the_span_of_the_longest_of_them() -> None:
    """Against sequences drawn at random decode steps."""
    base = setting(where="h100", slots=64, cache_length=1024)
    random = np.random.default_rng(0)
    found = of([(int(a), int(b)) for a, b in random.integers(2, 700, (300, 2))])
    steps = found.outputs - 1
    for active in (1, 3, 20, 64):
        who = random.choice(len(steps), (4000, active), p=steps / steps.sum())
        at = found.inputs[who] + random.integers(1, steps[who] + 1)
        drawn = span_of(base, np.minimum(at, 1024).max(axis=1)).mean()
        assert mean_read(base, found, active) == pytest.approx(64 * drawn, rel=0.02)
    both = mean_read(base, found, np.array([3.0, 20.0]))
    assert both == pytest.approx([mean_read(base, found, n) for n in (3, 20)])
    assert mean_read(base, of([(200, 1)]), 5) == 64 * 256
    live = setting(where="h100", slots=64, software=SOFTWARE["least"])
    assert mean_read(live, found, 5) == pytest.approx(5 * mean_positions(found, 2048))


def test_erlangs_formula() -> None:
    for servers, load in ((1, 0.3), (5, 3.0), (20, 19.0)):
        # Written out: a^c / c! * c / (c - a) over the sum of all states.
        top = load**servers / math.factorial(servers) * servers / (servers - load)
        states = sum(load**k / math.factorial(k) for k in range(servers))
        assert erlang_c(servers, load) == pytest.approx(top / (states + top))
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    assert (erlang_c(4, 4.0), erlang_c(4, 0.0)) == (1.0, 0.0)
    assert erlang_c(2000, 1500.0) < 1e-3


def test_at_a_rate_the_sequences_are_those_of_littles_law() -> None:
    server = Server(setting(where="h100", slots=64), of([(200, 300)]), REAL)
    rate = server.most_requests / 2
    steady = server.at_rate(rate)
    assert steady.active == pytest.approx(rate * 299 * steady.tpot, rel=1e-6)
    assert steady.tokens_per_s == pytest.approx(rate * 300)
    assert steady.tpot > float(server.step(steady.active).total)


def test_load_makes_everything_slower_up_to_the_most_and_no_further() -> None:
    server = Server(setting(where="h100", slots=64), of([(200, 300)]), REAL)
    most = server.most_requests
    found = [server.at_rate(share * most) for share in (0.1, 0.5, 0.9, 0.99)]
    for slower, faster in zip(found[1:], found, strict=False):
        assert slower.ttft > faster.ttft
        assert slower.tpot > faster.tpot
    assert found[-1].active <= 64
    for rate in (most, 2 * most, 0.0, -1.0):
        with pytest.raises(UsageError, match="the most that 64 slots on h100 can take"):
            server.at_rate(rate)


def test_a_full_server_gives_what_a_long_run_of_many_requests_does() -> None:
    base = setting(where="h100", slots=16)
    # Of many lengths: of one they go through the spans in step.
    drawn = np.random.default_rng(0).integers((50, 100), (150, 300), (3000, 2))
    lengths = of([(int(a), int(b)) for a, b in drawn])
    long = time_batch(batch_run(base, lengths), REAL)
    most = Server(base, lengths, REAL).most_requests
    assert long.throughput == pytest.approx(most * lengths.outputs.mean(), rel=0.02)


def test_energy_and_price() -> None:
    base = setting(where="h100x2")
    power = datasheet_power(base.slice)
    assert power is not None
    assert power.joules_per_token(1000) == pytest.approx(1.4)
    assert "datasheet" in power.source
    # 21.6 dollars an hour for 3.6 million tokens.
    assert price_per_million(base.slice, 1000) == pytest.approx(6.0)
    assert datasheet_power(setting(where="v5e-8").slice) is None
    assert price_per_million(setting(where="rtx4090").slice, 1.0) is None
