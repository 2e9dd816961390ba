"""Fits: they recover what made the data, keep to their priors, and say how far off they are."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from capacity.calibration.fit import fit
from capacity.calibration.held_out import leave_out, summarise
from capacity.calibration.interval import interval
from capacity.calibration.observation import Observation
from capacity.calibration.store import Calibration, describe_data, describe_summary, load, save
from capacity.timing.efficiency import Efficiency, Prior
from client.errors import UsageError

TRUE = Efficiency(weights=0.6, compute=0.3, step_s=2e-3)
PRIORS = {
    "weights": Prior(0.8, 0.5),
    "compute": Prior(0.5, 0.5),
    "step_s": Prior(1e-3, 1.0),
}


def seconds(size: float) -> Callable[[Efficiency], float]:
    """Bytes, arithmetic that grows faster, and a host."""
    return lambda e: max(size / e.weights, size**2 / e.compute) + e.step_s


def observations(noise: float, seed: int = 0, sizes: int = 12) -> list[Observation]:
    """Made with TRUE and lognormal noise."""
    generator = np.random.default_rng(seed)
    return [
        Observation(
            f"size {size:.4f}",
            seconds(size)(TRUE) * float(np.exp(noise * generator.normal())),
            seconds(size),
        )
        for size in np.geomspace(1e-3, 2.0, sizes)
    ]


def test_without_noise_the_parameters_come_back() -> None:
    found = fit(observations(0.0), PRIORS, 0.001).values
    assert found["weights"] == pytest.approx(0.6, rel=1e-2)
    assert found["compute"] == pytest.approx(0.3, rel=1e-2)
    assert found["step_s"] == pytest.approx(2e-3, rel=1e-2)


def test_without_data_the_priors_stand() -> None:
    posterior = fit([], PRIORS, 0.1)
    assert posterior.values["weights"] == pytest.approx(0.8)
    assert np.sqrt(np.diag(posterior.covariance)) == pytest.approx([0.5, 0.5, 1.0])
    assert posterior.noise == 0.1


def test_what_the_data_do_not_tell_keeps_its_prior() -> None:
    # Nothing here depends on arithmetic.
    small = [each for each in observations(0.01) if float(each.name.split()[1]) < 0.4]
    posterior = fit(small, PRIORS, 0.05)
    place = posterior.free.index("compute")
    assert posterior.values["compute"] == pytest.approx(0.5, rel=0.01)
    assert np.sqrt(posterior.covariance[place, place]) == pytest.approx(0.5, rel=0.05)


def test_a_spread_of_0_fixes_a_parameter() -> None:
    posterior = fit(observations(0.0), {**PRIORS, "weights": Prior(0.7, 0.0)}, 0.05)
    assert posterior.values["weights"] == 0.7
    assert "weights" not in posterior.free


def test_a_parameter_of_a_tag_is_fitted_to_those_that_have_it() -> None:
    def of(share: float, tags: frozenset[str]) -> Observation:
        return Observation("x", 1 / share, lambda e: 1 / e.compute, tags)

    data = [of(0.2, frozenset({"int8"})), of(0.6, frozenset())]
    found = fit(data, {"compute": Prior(0.4, 2.0), "compute@int8": Prior(0.4, 2.0)}, 0.01).values
    assert found["compute@int8"] == pytest.approx(0.2, rel=0.01)
    assert found["compute"] == pytest.approx(0.6, rel=0.01)


def test_intervals_hold_as_often_as_they_say() -> None:
    """95% and 90% of new measurements, over 40 sets of data of their own."""
    inside, narrow = [], []
    for seed in range(40):
        posterior = fit(observations(0.1, seed), PRIORS, 0.1)
        for new in observations(0.1, seed + 1000, sizes=7):
            found = interval(new.predict, posterior)
            inside.append(found.holds(new.measured))
            narrow.append(found.holds(new.measured, 0.9))
            assert found.holds(found.low * 1.001) and not found.holds(found.high * 1.001)
    assert 0.92 <= np.mean(inside) <= 0.98
    assert 0.87 <= np.mean(narrow) <= 0.93


def with_errors(seed: int, sizes: int = 20) -> list[Observation]:
    """Noise of 5%, and beside it the measurements' own errors, 0 to 40%, which they know of."""
    generator = np.random.default_rng(seed)
    return [
        replace(
            each, measured=each.measured * float(np.exp(error * generator.normal())), error=error
        )
        for each, error in zip(
            observations(0.05, seed, sizes), generator.choice([0.0, 0.05, 0.4], sizes), strict=True
        )
    ]


def test_a_measurement_counts_by_its_own_error() -> None:
    """So a fit that knows the errors is nearer to what made the data, and its noise is the rest."""
    off: dict[bool, list[float]] = {True: [], False: []}
    noises = []
    for seed in range(30):
        data = with_errors(seed)
        posterior = fit(data, PRIORS, 0.05)
        blind = fit([replace(each, error=0.0) for each in data], PRIORS, 0.05)
        noises.append(posterior.noise)
        for knows, found in ((True, posterior), (False, blind)):
            off[knows].append(abs(float(np.log(found.values["weights"] / TRUE.weights))))
    assert np.mean(off[True]) < 0.6 * np.mean(off[False])
    assert np.mean(noises) == pytest.approx(0.05, rel=0.15)


def test_intervals_hold_measurements_with_errors_of_their_own() -> None:
    held = [one for seed in range(12) for one in leave_out(with_errors(seed), PRIORS, 0.05)]
    for error in (0.0, 0.4):
        inside = [one.inside for one in held if one.observation.error == error]
        assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("error", [-0.1, float("inf"), float("nan")])
def test_an_error_is_a_share(error: float) -> None:
    with pytest.raises(ValueError, match="size: its error is"):
        Observation("size", 1.0, seconds(1.0), error=error)


def test_leaving_one_out_does_not_look_at_it() -> None:
    data = observations(0.02)
    wild = Observation(data[5].name, data[5].measured * 50, data[5].predict)
    others = leave_out([*data[:5], wild, *data[6:]], PRIORS, 0.05)
    assert others[5].predicted.value == pytest.approx(data[5].measured, rel=0.1)
    assert not others[5].inside
    summary = summarise(others)
    assert summary.coverage == pytest.approx(11 / 12)
    assert summary.largest == pytest.approx(1 - 1 / 50, abs=0.01)


def test_a_group_is_left_out_whole() -> None:
    data = observations(0.0)
    held = leave_out(data, PRIORS, 0.05, lambda each: data.index(each) // 6)
    # Without the large half nothing is known of arithmetic: the prior's 0.5 where 0.3 is true.
    assert held[-1].error == pytest.approx(0.3 / 0.5 - 1, abs=0.05)


def test_what_is_always_there_helps_and_is_not_left_out() -> None:
    data = observations(0.0)
    held = leave_out(data[-2:], PRIORS, 0.05, always=data[:-2])
    assert len(held) == 2
    assert abs(held[0].error) < 0.05


def test_one_measurement_cannot_be_left_out() -> None:
    with pytest.raises(UsageError, match="two or more"):
        leave_out(observations(0.0)[:1], PRIORS, 0.05)


def test_a_measurement_is_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Observation("x", 0.0, lambda e: 1.0)


def kept(path: Path) -> Calibration:
    """A calibration, written."""
    data = observations(0.05)
    posterior = fit(data, PRIORS, 0.05)
    held = leave_out(data, PRIORS, 0.05)
    made = Calibration(
        "loadstone", "a chip", posterior, PRIORS, describe_data(held), describe_summary(held),
        "2026-11-21T10:00:00",
    )  # fmt: skip
    save(made, path)
    return made


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    made = kept(path)
    read = load(path)
    assert read.posterior.values == pytest.approx(dict(made.posterior.values))
    assert read.posterior.covariance == pytest.approx(made.posterior.covariance)
    assert len(read.data) == 12 and read.summary["count"] == 12
    predict = seconds(0.5)
    assert interval(predict, read.posterior).low == pytest.approx(
        interval(predict, made.posterior).low
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d | {"format": "loadstone-calibration-9"}, "loadstone-calibration-1"),
        (lambda d: d | {"values": {"speed": 1.0}}, "unknown parameters"),
        (lambda d: {k: v for k, v in d.items() if k != "free"}, "damaged"),
        (lambda d: [d], "format None"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: Callable, says: str) -> None:
    path = tmp_path / "calibration.json"
    kept(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert says in str(caught.value)
    path.write_text(path.read_text()[:50])
    with pytest.raises(UsageError, match="not JSON"):
        load(path)
