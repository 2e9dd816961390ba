"""The parameters that measurements and priors together make most likely.

    minimise  sum over measurements of log(predicted / measured)^2 / (noise^2 + error^2)
            + sum over parameters   of (log(value / median) / spread)^2

which is the mode of the posterior (MAP) under lognormal noise and lognormal priors. Around it the
posterior is taken to be normal in the logarithms (Laplace): its covariance is the inverse of
J' W J + diag(1 / spread^2), J the derivatives of the logarithms of the predictions and W the
weights 1 / (noise^2 + error^2). `error` is a measurement's own, the mean of few or of many; `noise`
is of all alike and estimated from what is left over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capacity.calibration.observation import Observation
from capacity.timing.efficiency import Prior, efficiency_of

_STEP = 1e-4  # of a logarithm, for derivatives


@dataclass(frozen=True)
class Posterior:
    """What is known of the parameters.

    values: all of them, by name. free: those that were fitted, in the order of `covariance`, which
    is of their logarithms. noise: standard deviation of the logarithm of a measurement around its
    prediction, beside the measurement's own error, and `freedom`, the degrees of freedom it was
    estimated with.
    """

    values: Mapping[str, float]
    free: tuple[str, ...]
    covariance: np.ndarray
    noise: float
    freedom: float


def fit(
    observations: Sequence[Observation], priors: Mapping[str, Prior], noise: float
) -> Posterior:
    """`noise`: what is expected before measuring, as a standard deviation of the logarithm.

    Without observations it is the prior.
    """
    from scipy.optimize import least_squares

    free = tuple(name for name, prior in priors.items() if prior.spread > 0)
    medians = np.log([priors[name].median for name in free])
    spreads = np.array([priors[name].spread for name in free])

    own = np.array([each.error for each in observations])
    sigmas = np.sqrt(noise**2 + own**2)

    def residuals(logs: np.ndarray) -> np.ndarray:
        errors = _log_errors(observations, _values(priors, free, logs))
        return np.concatenate([errors / sigmas, (logs - medians) / spreads])

    logs = medians
    if observations and free:
        logs = least_squares(residuals, medians, x_scale=spreads).x
    values = _values(priors, free, logs)
    jacobian = _jacobian(observations, priors, free, logs)
    scaled = jacobian / sigmas[:, None]
    precision = scaled.T @ scaled + np.diag(spreads**-2.0)
    covariance = np.linalg.inv(precision) if free else np.zeros((0, 0))
    # The trace of the hat matrix: how many parameters the data really decided.
    used = float(np.trace(scaled @ covariance @ scaled.T))
    left = _log_errors(observations, values)
    return Posterior(values, free, covariance, *_noise(left, own, used, noise))


def predict(observation: Observation, values: Mapping[str, float]) -> float:
    """With these parameters."""
    return observation.predict(efficiency_of(values, observation.tags))


def _noise(left: np.ndarray, own: np.ndarray, used: float, expected: float) -> tuple[float, float]:
    """From errors that are left over, of which `own` is the measurements' own. What was expected
    counts as `_PRIOR_FREEDOM` more measurements, so that a few points that happen to lie well do
    not promise too much.
    """
    if not len(left):
        return expected, _BELIEVED
    freedom = max(len(left) - used, 0.0) + _PRIOR_FREEDOM
    total = float(left @ left) + _PRIOR_FREEDOM * expected**2
    most = float(np.sqrt(total / freedom))
    if not own.any():
        return most, freedom
    from scipy.optimize import brentq

    def unexplained(noise: float) -> float:
        share = float(np.sum(left**2 / (noise**2 + own**2)))
        return share + _PRIOR_FREEDOM * (expected / noise) ** 2 - freedom

    # Its sign changes: below the least all the rest is explained by what was expected alone.
    least = expected * float(np.sqrt(_PRIOR_FREEDOM / freedom)) * 0.5
    return float(brentq(unexplained, least, most)), freedom


_PRIOR_FREEDOM = 2.0
# Priors alone are taken at their word.
_BELIEVED = 1000.0


def _values(priors: Mapping[str, Prior], free: Sequence[str], logs: np.ndarray) -> dict[str, float]:
    values = {name: prior.median for name, prior in priors.items()}
    return values | dict(zip(free, np.exp(logs).tolist(), strict=True))


def _log_errors(observations: Sequence[Observation], values: Mapping[str, float]) -> np.ndarray:
    return np.array([np.log(predict(each, values) / each.measured) for each in observations])


def _jacobian(
    observations: Sequence[Observation],
    priors: Mapping[str, Prior],
    free: Sequence[str],
    logs: np.ndarray,
) -> np.ndarray:
    columns = []
    for index in range(len(free)):
        step = np.zeros(len(free))
        step[index] = _STEP
        up = _log_errors(observations, _values(priors, free, logs + step))
        down = _log_errors(observations, _values(priors, free, logs - step))
        columns.append((up - down) / (2 * _STEP))
    return np.array(columns).T.reshape(len(observations), len(free))
