"""Page 001: decode steps under bitsandbytes, one calibration a device and version."""

from collections.abc import Sequence

from capacity.calibration.observation import Observation
from capacity.hardware.slice import Slice
from capacity.published.decode_step import step_seconds
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.timing.efficiency import IDEAL, Efficiency, Prior, Priors
from capacity.timing.profiles import NOISE, TORCH, TORCH_LAYER_SECONDS
from capacity.work.setting import Setting
from capacity.work.software import LEAST, SOFTWARE, Software
from server.models.catalogue import catalogue

# Prompt 64, 100 new tokens.
_MEAN_POSITIONS = 114


def _expects(
    row: PublishedRow, chips: Chips, software: Software = SOFTWARE["torch"]
) -> Observation:
    setting = Setting(
        catalogue()[row.model],
        Slice(chips[row.chip], 1),
        weights=row.weights,
        slots=row.batch,
        software=software,
    )
    step = step_seconds(setting, _MEAN_POSITIONS)

    def predict(efficiency: Efficiency) -> float:
        return step(efficiency) * 1e3

    name = f"{row.model}, {row.variant}, batch {row.batch}"
    return Observation(name, _measured(row), predict, frozenset({row.weights}))


def _bound(row: PublishedRow, chips: Chips) -> float:
    return _expects(row, chips, LEAST).predict(IDEAL)


def _measured(row: PublishedRow) -> float:
    return row.values["decode_step_s"] * 1e3


def _priors(rows: Sequence[PublishedRow]) -> Priors:
    del rows
    spread = TORCH["layer_s"].spread
    own = {f"layer_s@{name}": Prior(at, spread) for name, at in TORCH_LAYER_SECONDS.items()}
    return {**TORCH, "layer_s": Prior(7e-4, 0.0), **own}


MODEL = PageModel(
    number="001",
    metric="decode_step_s",
    unit="ms/step",
    measured=_measured,
    group=lambda row: f"{row.chip}, {row.version}",
    expects=_expects,
    bound=_bound,
    priors=_priors,
    noise=NOISE["torch"],
    apart=lambda row: row.model,
    notes=(
        "the host's time a layer is a parameter of each scheme: it launches kernels one by one",
        "seconds of a decode step; the page prints four decimals, so 15 ms is known to 0.3%",
    ),
)
