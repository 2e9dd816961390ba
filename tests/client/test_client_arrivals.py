"""When requests are due."""

import argparse
import math
import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.errors import UsageError
from client.load.arrival_options import add_arrival_options, arrivals_from
from client.load.arrivals import Arrivals, arrival_times, check_rate
from client.load.rates import Ramp, Stage

RATES = st.floats(0.01, 1000)
SEEDS = st.integers(0, 2**32)
SHAPES = st.floats(1e-4, 100)


@st.composite
def processes(draw):
    process = draw(st.sampled_from(["constant", "poisson", "gamma"]))
    return {"process": process, "burstiness": draw(SHAPES) if process == "gamma" else 1.0}


@st.composite
def plans(draw):
    """Arrivals of every kind, with a duration that holds a few hundred requests at most."""
    given = draw(processes())
    kind = draw(st.sampled_from(["rate", "ramp", "stages"]))
    if kind == "stages":
        stages = draw(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 5)), max_size=4))
        stages.append((draw(st.floats(1, 20)), draw(st.floats(1, 5))))
        return Arrivals(**given, stages=tuple(Stage(*stage) for stage in stages)), None
    if kind == "ramp":
        strategy = draw(st.sampled_from(["linear", "exponential"]))
        ramp = Ramp(strategy, draw(st.floats(0.1, 50)), draw(st.floats(0.1, 50)))
        return Arrivals(**given, ramp=ramp), draw(st.floats(10, 20))
    return Arrivals(**given, rate=draw(st.floats(0.1, 50))), draw(st.floats(10, 20))


# Gaps of less than a rounding error.
ROUNDED = Arrivals("gamma", burstiness=0.125, ramp=Ramp("linear", 0.1015625, 19.5))


@given(processes(), st.integers(0, 200), RATES, SEEDS)
def test_arrivals_are_fixed_by_the_seed_ordered_and_start_at_once(process, count, rate, seed):
    arrivals = Arrivals(**process, rate=rate)
    times = arrival_times(arrivals, count, None, seed)
    assert times.shape == (count,)
    assert np.array_equal(times, arrival_times(arrivals, count, None, seed))
    assert (np.diff(times) >= 0).all()
    assert count == 0 or times[0] == 0
    assert count < 2 or times[-1] == pytest.approx((count - 1) / rate)


@given(plans(), SEEDS)
@example((ROUNDED, 16.625), 1524)
def test_a_duration_holds_as_many_requests_as_the_rate_gives(plan, seed):
    arrivals, duration = plan
    times = arrival_times(arrivals, None, duration, seed)
    seconds = duration or sum(stage.seconds for stage in arrivals.stages)
    assert len(times) == round(arrivals.mean_rate * seconds)
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert times[-1] <= seconds


def dispersion(arrivals, windows=400, per_window=25.0, runs=40):
    """Variance over mean of the requests in windows of `per_window`, over many seeds."""
    edges = np.arange(windows + 1) * per_window / arrivals.rate
    counts = [
        np.histogram(arrival_times(arrivals, int(windows * per_window), None, seed), edges)[0]
        for seed in range(runs)
    ]
    # Against the mean that is known: within one run the counts must add up.
    return np.mean((np.array(counts) - per_window) ** 2) / per_window


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"process": "poisson"}, 1.0),
        ({"process": "gamma", "burstiness": 1.0}, 1.0),
        ({"process": "gamma", "burstiness": 0.25}, 4.0),
        ({"process": "gamma", "burstiness": 4.0}, 0.25),
    ],
)
def test_counts_are_dispersed_as_the_process_says(given, expected):
    assert dispersion(Arrivals(**given, rate=50.0)) == pytest.approx(expected, rel=0.15)


def test_constant_arrivals_are_not_dispersed():
    times = arrival_times(Arrivals("constant", rate=8.0), 100, None, 3)
    assert np.array_equal(times, np.arange(100) / 8)


def growing(t):
    return 2 * 25 ** (t / 10)


def shrinking(t):
    return 50 / 25 ** (t / 10)


# The reference: requests up to t by summing the rate over small steps of time.
@pytest.mark.parametrize(
    ("arrivals", "duration", "rate_at"),
    [
        (Arrivals("constant", ramp=Ramp("linear", 0, 40)), 10.0, lambda t: 4 * t),
        (Arrivals("constant", ramp=Ramp("linear", 40, 10)), 10.0, lambda t: 40 - 3 * t),
        (Arrivals("constant", ramp=Ramp("exponential", 2, 50)), 10.0, growing),
        (
            Arrivals("constant", ramp=Ramp("exponential", 50, 2)),
            10.0,
            shrinking,
        ),
        (Arrivals("constant", ramp=Ramp("linear", 9, 9)), 10.0, lambda t: 9 + 0 * t),
        (
            Arrivals("constant", stages=(Stage(5, 3), Stage(0, 2), Stage(40, 4), Stage(0, 1))),
            None,
            lambda t: np.select([t < 3, t < 5, t < 9], [5, 0, 40], 0),
        ),
    ],
)
def test_requests_up_to_any_time_are_the_integral_of_the_rate(arrivals, duration, rate_at):
    times = arrival_times(arrivals, None, duration, 0)
    steps = (np.arange(100_000) + 0.5) * 1e-4
    integral = np.cumsum(rate_at(steps)) * 1e-4
    for moment in (1.0, 2.9, 4.9, 7.7, 9.99):
        assert abs((times <= moment).sum() - integral[int(moment * 1e4) - 1]) <= 1.5


def test_the_rate_is_exact_when_the_duration_holds_no_whole_number_of_requests():
    times = arrival_times(Arrivals("constant", rate=4.0), None, 2.6, 0)
    assert np.array_equal(times, np.arange(10) / 4)
    ramped = arrival_times(Arrivals("constant", ramp=Ramp("linear", 0, 10)), None, 1.1, 0)
    assert np.allclose(5 * ramped**2 / 1.1, np.arange(6))  # 10 / 1.1 requests/s more each second
    staged = Arrivals("constant", stages=(Stage(4.0, 1.4), Stage(2.0, 1.5)))
    assert np.allclose(arrival_times(staged, None, None, 0), [*np.arange(6) / 4, 1.6, 2.1, 2.6])


def test_a_ramp_over_a_number_of_requests_is_as_long_as_they_need():
    arrivals = Arrivals("constant", ramp=Ramp("linear", 0, 20))
    times = arrival_times(arrivals, 100, None, 0)
    assert np.allclose(times, arrival_times(arrivals, None, 10.0, 0))


def test_a_poisson_ramp_is_a_poisson_process_in_its_own_time():
    arrivals = Arrivals(ramp=Ramp("linear", 10, 90))
    counts = []
    for seed in range(40):
        times = arrival_times(arrivals, None, 200.0, seed)
        # 10 t + 0.2 t^2 requests come by t; windows of equal numbers of them.
        counts.append(np.histogram(10 * times + 0.2 * times**2, np.arange(401) * 25.0)[0])
    assert np.mean((np.array(counts) - 25) ** 2) / 25 == pytest.approx(1.0, rel=0.15)


def test_requests_of_stages_may_be_fewer_but_not_more_than_they_hold():
    arrivals = Arrivals("constant", stages=(Stage(2, 5), Stage(10, 1)))
    assert np.allclose(arrival_times(arrivals, 12, None, 0), [*np.arange(10) / 2, 5.0, 5.1])
    with pytest.raises(UsageError, match="hold 20 requests; asked for 21"):
        arrival_times(arrivals, 21, None, 0)


def test_other_seeds_give_other_arrivals():
    arrivals = Arrivals(rate=5.0)
    one, other = (arrival_times(arrivals, 10, None, seed) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("rate", [0.0, math.inf])
def test_zero_and_infinity_are_all_at_once(rate):
    arrivals = Arrivals(rate=check_rate(rate))
    assert arrival_times(arrivals, 5, None, 0).tolist() == [0.0] * 5


@pytest.mark.parametrize("rate", [-1.0, -math.inf, math.nan])
def test_other_rates_are_refused(rate):
    with pytest.raises(UsageError, match="requests per second"):
        check_rate(rate)


def test_a_run_without_a_number_of_requests_must_say_how_long_it_is():
    with pytest.raises(UsageError, match="--duration"):
        arrival_times(Arrivals(rate=3.0), None, None, 0)
    with pytest.raises(UsageError, match="needs --request-rate"):
        arrival_times(Arrivals(), None, 5.0, 0)
    with pytest.raises(UsageError, match="not both"):
        arrival_times(Arrivals(rate=3.0), 5, 5.0, 0)
    with pytest.raises(UsageError, match="raise it"):
        arrival_times(Arrivals(rate=0.01), None, 5.0, 0)


def parsed(*arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arrival_options(parser.add_argument_group("when"))
    return arrivals_from(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "arrivals"),
    [
        ([], Arrivals()),
        (["--request-rate", "inf", "--burstiness", "1.0"], Arrivals()),
        (["--request-rate", "4"], Arrivals(rate=4.0)),
        (["--request-rate", "4", "--burstiness", "0.5"], Arrivals("gamma", 4.0, 0.5)),
        (["--request-rate", "4", "--arrivals", "constant"], Arrivals("constant", 4.0)),
        (
            ["--ramp-up-strategy", "linear", "--ramp-up-start-rps", "0", "--ramp-up-end-rps", "9"],
            Arrivals(ramp=Ramp("linear", 0.0, 9.0)),
        ),
        (["--stages", "2:30,8:30"], Arrivals(stages=(Stage(2, 30), Stage(8, 30)))),
    ],
)
def test_the_command_line_gives_arrivals(arguments, arrivals):
    assert parsed(*arguments) == arrivals
    assert pickle.loads(pickle.dumps(arrivals)) == arrivals


RAMP = ["--ramp-up-strategy", "linear", "--ramp-up-start-rps", "1", "--ramp-up-end-rps", "9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--request-rate", "-1"], "requests per second"),
        (["--request-rate", "2", "--burstiness", "0"], "--burstiness: above 0"),
        (["--request-rate", "2", "--arrivals", "constant", "--burstiness", "2"], "not constant"),
        (["--burstiness", "2"], "give --request-rate"),
        ([*RAMP, "--request-rate", "2"], "give one of them"),
        ([*RAMP, "--stages", "2:3"], "give one of them"),
        (["--stages", "2:3", "--request-rate", "2"], "give one of them"),
        (RAMP[:4], "go together"),
        ([*RAMP[:3], "-1", *RAMP[4:]], "0 or more"),
        (["--ramp-up-strategy", "exponential", *RAMP[2:3], "0", *RAMP[4:]], "above 0"),
        (["--stages", "2"], "'2'"),
        (["--stages", "2:x"], "'2:x'"),
        (["--stages", "2:0"], "seconds above 0"),
        (["--stages", "nan:1"], "a rate of 0 or more"),
        (["--stages", "0:5"], "above 0"),
        (["--stages", "2:5", "--duration", "5"], "leave out --duration"),
        (["--request-rate", "2", "--duration", "0"], "seconds above 0"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        parsed(*arguments)
