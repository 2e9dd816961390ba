"""Page 003: 16 forwards without a KV cache, one calibration a table."""

from collections.abc import Sequence
from dataclasses import replace

from capacity.calibration.observation import Observation
from capacity.hardware.slice import Slice
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.timing.efficiency import IDEAL, Efficiency, Prior, Priors
from capacity.timing.profiles import NOISE, TORCH
from capacity.timing.seconds import step_time
from capacity.work.forward import Forward, forward_work, least_work
from server.models.catalogue import catalogue

FORWARDS = 16


def forward_of(row: PublishedRow) -> Forward:
    """The context grows from the prompt by a token a forward."""
    return Forward(
        catalogue()[row.model],
        row.batch,
        row.prompt + FORWARDS // 2,
        compute=row.compute,
        weights=row.weights,
        loss=False,
        windowed=row.variant.startswith("FA2"),
    )


def _expects(row: PublishedRow, chips: Chips) -> Observation:
    work, where = forward_work(forward_of(row)), Slice(chips[row.chip], 1)

    def predict(efficiency: Efficiency) -> float:
        return float(step_time(work, where, efficiency).total) * FORWARDS

    name = f"{row.variant}, {row.compute}, batch {row.batch}, context {row.prompt}"
    tags = frozenset({row.weights, f"{row.weights}/{row.compute}"})
    return Observation(name, _measured(row), predict, tags)


def _bound(row: PublishedRow, chips: Chips) -> float:
    least = least_work(replace(forward_of(row), windowed=True))
    return float(step_time(least, Slice(chips[row.chip], 1), IDEAL).total) * FORWARDS


def _measured(row: PublishedRow) -> float:
    return row.values["minibatch_s"]


def _priors(rows: Sequence[PublishedRow]) -> Priors:
    own = {
        "weights": Prior(0.75, 0.0),
        "cache": Prior(0.5, 0.0),
        "compute": Prior(0.6, 0.4),
        "layer_s": Prior(7e-4, 0.0),
    }
    if any(row.weights != "none" for row in rows):
        # How fast the products of each scheme are, four bits written out first.
        own["compute@nf4/bf16"] = Prior(0.5, 0.4)
        own["compute@int8-decomp"] = Prior(0.3, 0.5)
        own["compute@nf4/fp32"] = Prior(0.8, 0.2)
    return {**TORCH, **own}


MODEL = PageModel(
    number="003",
    metric="minibatch_s",
    unit="s / 16 forwards",
    measured=_measured,
    group=lambda row: row.table,
    expects=_expects,
    bound=_bound,
    priors=_priors,
    noise=NOISE["torch"],
    notes=(
        "scaled_dot_product_attention takes a path with batch 2 that it does not take with 4 and 8 "
        "(8,192 tokens: 22.75 s and 66.96 s); this is not modelled",
    ),
)
