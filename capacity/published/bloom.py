"""Page 000: decode steps of BLOOM, one calibration a column."""

from collections.abc import Sequence

from capacity.calibration.observation import Observation
from capacity.hardware.slice import Slice
from capacity.published.decode_step import step_seconds
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.timing.efficiency import IDEAL, Efficiency, Priors
from capacity.timing.profiles import NOISE, TORCH
from capacity.work.setting import Setting
from capacity.work.software import LEAST, SOFTWARE, Software
from server.models.catalogue import catalogue

# Prompts have 3 to 9 tokens, and 100 new ones follow: 7 + 100 / 2.
_MEAN_POSITIONS = 57


def _expects(
    row: PublishedRow, chips: Chips, software: Software = SOFTWARE["torch"]
) -> Observation:
    setting = Setting(
        catalogue()[row.model],
        Slice(chips[row.chip], 1),
        compute=row.compute,
        slots=row.batch,
        software=software,
    )
    step = step_seconds(setting, _MEAN_POSITIONS)

    def predict(efficiency: Efficiency) -> float:
        return row.batch / step(efficiency)

    return Observation(f"{row.variant}, batch {row.batch}", _measured(row), predict)


def _bound(row: PublishedRow, chips: Chips) -> float:
    return _expects(row, chips, LEAST).predict(IDEAL)


def _measured(row: PublishedRow) -> float:
    return row.values["tokens_per_s"]


def _priors(rows: Sequence[PublishedRow]) -> Priors:
    del rows
    return TORCH


MODEL = PageModel(
    number="000",
    metric="tokens_per_s",
    unit="tokens/s",
    measured=_measured,
    group=lambda row: row.variant,
    expects=_expects,
    bound=_bound,
    priors=_priors,
    noise=NOISE["torch"],
    notes=(
        "throughput over whole generate calls; prefill of 3 to 9 tokens counts as one of 100 steps",
        "DeepSpeed's fused kernels are counted like eager ones; its own fit makes up for it",
    ),
)
