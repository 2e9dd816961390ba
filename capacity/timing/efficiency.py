"""How much of its peaks a chip reaches under some software, and what the host adds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

# Shares of a peak lie in (0, 1] in nature; the fits are in the logarithm and do not enforce it.
SHARES = ("weights", "quantized", "cache", "elementwise", "compute", "link")
HOST = ("step_s", "layer_s", "sequence_s", "request_s")


@dataclass(frozen=True)
class Efficiency:
    """The parameters that are calibrated.

    weights, quantized, cache, elementwise: share of the memory's bandwidth that kernels of this
    kind reach; `quantized` is on top of `weights` or `cache`, for what is stored in fewer bits.
    compute: share of the peak of arithmetic. link: share of the link's bandwidth in one direction.
    step_s, layer_s, sequence_s: seconds of the host for a step, for each layer of it, and for each
    sequence in it. request_s: seconds of the host for each request taken in.
    overlap: how host and device run side by side: 1 one after the other, large ones hidden by the
    longer (see `seconds.py`). ridge: the same of a kernel's memory traffic and arithmetic; infinite
    is the roofline.
    effect: of a group of measurements that is not explained, on the whole time.
    """

    weights: float = 0.8
    quantized: float = 0.8
    cache: float = 0.8
    elementwise: float = 0.8
    compute: float = 0.5
    link: float = 0.5
    step_s: float = 0.0
    layer_s: float = 0.0
    sequence_s: float = 0.0
    request_s: float = 0.0
    overlap: float = 1.0
    ridge: float = math.inf
    effect: float = 1.0


NAMES = tuple(each.name for each in fields(Efficiency))
# Of physics alone: every peak reached, no host.
IDEAL = Efficiency(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Prior:
    """What is believed of a parameter before measuring: lognormal.

    `spread` is the standard deviation of the logarithm: 0.1 is about 10% either way; 0 fixes it.
    """

    median: float
    spread: float

    def __post_init__(self) -> None:
        if not (self.median > 0 and self.spread >= 0):
            raise ValueError(f"a prior has a median above 0 and a spread of 0 or more; got {self}")


Priors = Mapping[str, Prior]


def efficiency_of(values: Mapping[str, float], tags: frozenset[str]) -> Efficiency:
    """The parameters as they apply to a measurement with these tags.

    `name@tag` applies to measurements that have the tag, in place of `name`.
    """
    chosen = {name: value for name, value in values.items() if "@" not in name}
    for name, value in values.items():
        plain, _, tag = name.partition("@")
        if tag and tag in tags:
            chosen[plain] = value
    return Efficiency(**chosen)
