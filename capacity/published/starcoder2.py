"""Page 003: 16 forwards without a KV cache, one calibration a table."""

from collections.abc import Sequence

from capacity.calibration.observation import Observation
from capacity.hardware.slice import Slice
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.timing.efficiency import Efficiency, Prior, Priors
from capacity.timing.profiles import NOISE, TORCH
from capacity.timing.seconds import step_time
from capacity.work.eager import Forward, forward_work
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
        # How fast four bits are written out, how fast int8 and float32 products are.
        own["quantized@nf4"] = Prior(0.3, 1.0)
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
    priors=_priors,
    noise=NOISE["torch"],
    notes=(
        "scaled_dot_product_attention takes a path with batch 2 that it does not take with 4 and 8 "
        "(8,192 tokens: 22.75 s and 66.96 s); this is not modelled",
    ),
)
