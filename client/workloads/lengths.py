"""How long synthetic prompts and answers are."""

import math
from dataclasses import dataclass

import numpy as np

from client.errors import UsageError

DISTRIBUTIONS = ("fixed", "uniform", "lognormal")


@dataclass(frozen=True)
class LengthSettings:
    """Lengths in tokens around `inputs` and `outputs`.

    fixed: always that. uniform: whole numbers from length * (1 - range_ratio) to
    length * (1 + range_ratio), both ends included. lognormal: that mean, and `sigma` as the
    standard deviation of the logarithm.
    """

    inputs: int = 1024
    outputs: int = 128
    distribution: str = "uniform"
    range_ratio: float = 0.0
    sigma: float = 0.5

    def __post_init__(self) -> None:
        rules = (
            ("--random-input-len", self.inputs, self.inputs >= 1, "1 or more"),
            ("--random-output-len", self.outputs, self.outputs >= 1, "1 or more"),
            (
                "--random-distribution",
                self.distribution,
                self.distribution in DISTRIBUTIONS,
                ", ".join(DISTRIBUTIONS),
            ),
            (
                "--random-range-ratio",
                self.range_ratio,
                0 <= self.range_ratio < 1,
                "from 0 (all alike) to below 1",
            ),
            ("--random-sigma", self.sigma, 0 <= self.sigma < math.inf, "0 (all alike) or more"),
        )
        for option, value, held, allowed in rules:
            if not held:
                raise UsageError(f"{option}: {allowed}; got {value}")
        if self.range_ratio and self.distribution != "uniform":
            raise UsageError(
                f"--random-range-ratio is for --random-distribution uniform, not "
                f"{self.distribution}; leave one of them out"
            )


def draw_lengths(
    settings: LengthSettings, count: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """`count` pairs of prompt and answer lengths, 1 or more each."""
    inputs = _draw(settings.inputs, settings, count, generator)
    outputs = _draw(settings.outputs, settings, count, generator)
    return list(zip(inputs, outputs, strict=True))


def _draw(
    length: int, settings: LengthSettings, count: int, generator: np.random.Generator
) -> list[int]:
    if settings.distribution == "lognormal":
        # The mean of a lognormal is exp(mu + sigma^2 / 2).
        mu = math.log(length) - settings.sigma**2 / 2
        drawn = np.rint(generator.lognormal(mu, settings.sigma, count))
    elif settings.distribution == "uniform":
        # 100 * 1.1 is 110.00000000000001, and 10 * (1 - 0.7) is 3.0000000000000004.
        low = math.ceil(length * (1 - settings.range_ratio) - 1e-6)
        high = math.floor(length * (1 + settings.range_ratio) + 1e-6)
        drawn = generator.integers(low, high, count, endpoint=True)
    else:
        drawn = np.full(count, length)
    return np.maximum(drawn, 1).astype(int).tolist()
