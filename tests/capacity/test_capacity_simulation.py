"""The simulation against a plain one, theory and the closed form, and what it conserves."""

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from capacity_settings import setting
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_simulation import PlainReplica

from capacity.serving.batch_run import batch_run, time_batch
from capacity.serving.lengths import Lengths
from capacity.serving.level import Level
from capacity.simulation.fleet import Fleet, simulate
from capacity.simulation.router import LEAST_LOADED, ROUND_ROBIN, ROUTERS
from capacity.simulation.step_model import StepModel
from capacity.simulation.traffic import Traffic, at_rate, read_traffic
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work, dispatch_work
from capacity.work.software import LIVE, SOFTWARE, SPAN
from client.errors import UsageError
from client.load.arrivals import Arrivals

REAL = Efficiency(
    0.7, 0.8, 0.6, 0.7, 0.4, 0.5, step_s=1e-3, sequence_s=1e-5, request_s=2e-3, overlap=2.5
)
asks = st.lists(
    st.tuples(st.floats(0, 0.05), st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=40
)


def traffic(found: list[tuple[float, int, int]]) -> Traffic:
    """Gaps before each request, prompts, answers."""
    times = np.array(list(accumulate(gap for gap, _, _ in found)))
    return Traffic(
        times, np.array([a for _, a, _ in found]), np.array([b for _, _, b in found]), "drawn"
    )


@settings(max_examples=200, deadline=None)
@given(
    asks,
    st.integers(1, 6),
    st.integers(20, 600),
    st.integers(0, 1),
    st.integers(1, 3),
    st.sampled_from((LIVE, SPAN)),
)
def test_jumping_over_steps_changes_nothing(
    found: list[tuple[float, int, int]],
    slots: int,
    kept: int,
    ahead: int,
    per_decode: int,
    reads: str,
) -> None:
    software = replace(SOFTWARE["loadstone"], cache_reads=reads)
    base = setting(slots=slots, cache_length=kept, chunk=64, software=software)
    model = StepModel(base, REAL, REAL)
    asked = traffic(found)
    plain = PlainReplica(model, model.prefills, per_decode, ahead).run(
        list(zip(asked.times.tolist(), asked.inputs.tolist(), asked.outputs.tolist(), strict=True))
    )
    outcome = simulate(Fleet(ahead=ahead, prefills_per_decode=per_decode), model, asked)
    for name, wanted in (
        ("queue", [each.prefill_at for each in plain]),
        ("ttft", [each.first_token_at for each in plain]),
        ("e2el", [each.ended_at for each in plain]),
    ):
        assert getattr(outcome, name) + asked.times == pytest.approx(np.array(wanted), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(asks, st.integers(1, 4), st.sampled_from(ROUTERS), st.integers(1, 3))
def test_every_request_ends_once_and_all_tokens_are_made(
    found: list[tuple[float, int, int]], replicas: int, router: str, slots: int
) -> None:
    asked = traffic(found)
    model = StepModel(setting(slots=slots, cache_length=100, chunk=64), REAL, REAL)
    outcome = simulate(Fleet(replicas, router), model, asked)
    assert (outcome.completed, outcome.refused, outcome.unfinished) == (len(asked), 0, 0)
    assert outcome.tokens == asked.outputs.sum()
    assert 0 < outcome.utilisation <= 1 + 1e-9
    assert 0 <= outcome.occupancy <= 1 + 1e-9
    assert (outcome.queue >= 0).all()
    assert (outcome.ttft > outcome.queue).all()
    assert (outcome.e2el >= outcome.ttft).all()


def test_a_full_queue_refuses_and_what_it_refused_is_not_good() -> None:
    model = StepModel(setting(slots=1), REAL, REAL)
    asked = traffic([(0.0, 10, 10)] * 8)
    outcome = simulate(Fleet(queue_limit=3), model, asked)
    assert (outcome.completed, outcome.refused) == (3, 5)
    assert outcome.good(Level(ttft=1e9)) == pytest.approx(3 / 8)
    assert outcome.figures()["refused"] == 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((32, 64)), st.integers(1, 40)), min_size=1, max_size=40),
    st.integers(1, 9),
)
def test_all_at_once_it_is_the_closed_form(found: list[tuple[int, int]], slots: int) -> None:
    """Without a pipeline, with prompts that fill a dispatch of their own, read before any step."""
    base = setting(where="h100", slots=slots, cache_length=64, chunk=64)
    pairs = Lengths(np.array([a for a, _ in found]), np.array([b for _, b in found]), "drawn")
    closed = time_batch(batch_run(base, pairs), REAL)
    fleet = Fleet(ahead=0, prefills_per_decode=10**6, prefills=((1, 32), (1, 64)))
    outcome = simulate(fleet, _as_one(base), traffic([(0.0, *pair) for pair in found]))
    assert outcome.duration == pytest.approx(closed.duration)
    assert outcome.ttft == pytest.approx(closed.ttft)
    assert outcome.tpot == pytest.approx(closed.tpot, nan_ok=True)


def _as_one(base) -> StepModel:
    """Prompts of 32 and 64 tokens, each in a dispatch of its own."""

    class Single(StepModel):
        @property
        def prefills(self) -> tuple[tuple[int, int], ...]:
            return ((1, 32), (1, 64))

    return Single(base, REAL, REAL)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_prompts_alone_on_one_slot_are_an_m_d_1_queue(load: float) -> None:
    """Mean wait rho s / (2 (1 - rho)) for Poisson arrivals and service of s seconds."""
    model = StepModel(setting(slots=1, chunk=64), REAL, REAL)
    service = model.read([(0, 64)])
    pairs = Lengths(np.array([64]), np.array([1]), "alike")
    asked = at_rate(pairs, Arrivals("poisson", load / service), 60_000, 3)
    outcome = simulate(Fleet(ahead=0), model, asked)
    assert outcome.queue.mean() == pytest.approx(load * service / (2 * (1 - load)), rel=0.06)
    assert (outcome.ttft - outcome.queue) == pytest.approx(service)
    assert outcome.utilisation == pytest.approx(load, rel=0.02)


def test_constant_arrivals_below_the_most_never_wait() -> None:
    model = StepModel(setting(slots=1, chunk=64), REAL, REAL)
    service = model.read([(0, 64)])
    pairs = Lengths(np.array([64]), np.array([1]), "alike")
    asked = at_rate(pairs, Arrivals("constant", 0.99 / service), 1000, 0)
    assert simulate(Fleet(ahead=0), model, asked).queue.max() == pytest.approx(0, abs=1e-9)


def test_sequences_are_those_of_littles_law() -> None:
    model = StepModel(setting(slots=64, chunk=256), REAL, REAL)
    pairs = Lengths(np.array([200]), np.array([300]), "alike")
    asked = at_rate(pairs, Arrivals("poisson", 20.0), 20_000, 1)
    outcome = simulate(Fleet(), model, asked)
    running = np.nansum(outcome.tpot * 299) / outcome.duration
    # All but those that wait while the prompt of another is read.
    reading = outcome.reads * model.read([(0, 200)]) / outcome.duration
    assert outcome.occupancy * 64 == pytest.approx(running * (1 - reading), rel=0.05)


def test_a_seed_gives_the_same_run_and_another_seed_another() -> None:
    model = StepModel(setting(slots=8), REAL, REAL)
    pairs = Lengths(np.array([20, 200]), np.array([30, 100]), "two")

    def run(seed: int) -> dict:
        asked = at_rate(pairs, Arrivals("gamma", 30.0, 0.5), 300, seed)
        return simulate(Fleet(2, LEAST_LOADED), model, asked).figures()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_least_loaded_replica_spares_requests_the_long_ones() -> None:
    """Every second answer is long: round robin gives them all to one of two replicas."""
    model = StepModel(setting(slots=2), REAL, REAL)
    asked = traffic([(0.3, 10, 400 if i % 2 else 2) for i in range(200)])
    robin, least = (
        simulate(Fleet(2, router), model, asked) for router in (ROUND_ROBIN, LEAST_LOADED)
    )
    assert least.queue.mean() < 0.2 * robin.queue.mean()


def test_replicas_alike_are_independent_under_round_robin() -> None:
    model = StepModel(setting(slots=4), REAL, REAL)
    asked = at_rate(Lengths(np.array([50]), np.array([80]), "x"), Arrivals("poisson", 40.0), 90, 0)
    three = simulate(Fleet(3), model, asked)
    for at in range(3):
        alone = Traffic(asked.times[at::3], asked.inputs[at::3], asked.outputs[at::3], "third")
        assert simulate(Fleet(1), model, alone).e2el == pytest.approx(three.e2el[at::3])


def test_an_interrupt_leaves_what_had_happened_and_says_so() -> None:
    model = StepModel(setting(slots=4), REAL, REAL)
    pairs = Lengths(np.array([50]), np.array([80]), "x")
    asked = at_rate(pairs, Arrivals("poisson", 10.0), 5000, 0)

    def stop(come: int) -> None:
        if come > 2000:
            raise KeyboardInterrupt

    outcome = simulate(Fleet(1), model, asked, stop)
    assert outcome.interrupted
    assert 0 < outcome.completed < 5000
    assert outcome.completed + outcome.unfinished == 5000
    assert outcome.figures()["interrupted"] is True


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(("v5e-8", "h100", "a5000x8")),
    st.sampled_from(("none", "int8")),
    st.sampled_from((1.0, 2.5)),
    st.integers(1, 64),
    st.integers(0, 100_000),
    st.integers(1, 30),
)
def test_the_model_of_steps_is_the_formula(
    where: str, weights: str, overlap: float, active: int, positions: int, count: int
) -> None:
    base = setting(where=where, weights=weights, slots=64)
    efficiency = Efficiency(0.7, 0.8, 0.6, 0.7, 0.4, 0.5, 1e-3, 1e-5, 1e-5, overlap=overlap)
    model = StepModel(base, efficiency, efficiency)

    def formula(read: float) -> float:
        work = decode_work(base, float(active), float(read))
        return float(step_time(work, base.slice, efficiency).total)

    assert model.step(active, positions) == pytest.approx(formula(positions))
    total = sum(formula(positions + active * step) for step in range(count))
    assert model.steps(count, active, positions, active) == pytest.approx(total)
    chunks = [(512, 64), (0, 20)]
    work = dispatch_work(base, 8, 64, chunks)
    read = float(step_time(work, base.slice, efficiency).total)
    assert model.read(chunks) == pytest.approx(read)


def test_traces_and_records_are_read(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n"
        "2023-11-16 18:15:50.5,396,0\n2023-11-16 18:15:51.5,879,55\n"
    )
    found = read_traffic(azure)
    assert found.times.tolist() == [0.0, 5.0]
    assert found.outputs.tolist() == [44, 55]
    assert found.rate == pytest.approx(0.2)
    assert found.faster(2).times.tolist() == [0.0, 2.5]
    rows = tmp_path / "loadstone-x.jsonl"
    rows.write_text(
        "\n".join(
            json.dumps({"input_len": 5, "output_len": out, "sent": sent, "outcome": outcome})
            for sent, out, outcome in (
                (2.0, 7, "completed"),
                (1.0, 8, "completed"),
                (3, 0, "failed"),
            )
        )
    )
    for path in (rows, rows.with_suffix(".json")):
        found = read_traffic(path)
        assert found.times.tolist() == [0.0, 1.0]
        assert found.outputs.tolist() == [8, 7]


def test_what_is_no_traffic_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Azure CSV, Mooncake"):
        read_traffic(tmp_path / "absent.csv")
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="is no trace"):
        read_traffic(bad)
    broken = tmp_path / "x.jsonl"
    broken.write_text('{"input_len": 3}\n')
    with pytest.raises(UsageError, match="not the rows of a run"):
        read_traffic(broken)
    with pytest.raises(UsageError, match="--trace-speed"):
        traffic([(0.0, 1, 1)]).faster(0)
    for values in ({"replicas": 0}, {"queue_limit": 0}, {"ahead": 2}):
        with pytest.raises(UsageError):
            Fleet(**values)
    with pytest.raises(UsageError, match=r"--router: round-robin, least-loaded"):
        simulate(Fleet(router="best"), StepModel(setting(), REAL, REAL), traffic([(0.0, 1, 1)]))


def test_learned_positions_end_answers_and_leave_longer_prompts_out() -> None:
    asked = Traffic(np.arange(3.0), np.array([10, 30, 20]), np.array([50, 5, 5]), "three")
    left, without = asked.within(20)
    assert without == 1
    assert (left.inputs.tolist(), left.outputs.tolist()) == ([10, 20], [11, 1])
    assert asked.within(None) == (asked, 0)
