"""Page 002: whole runs of 2,000 prompts on TPU v5e, all rows in one calibration."""

from collections.abc import Sequence

from capacity.calibration.observation import Observation
from capacity.hardware.slice import find_slice
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.serving.batch_run import batch_run, batch_throughput
from capacity.serving.lengths import SAMPLE, parse_lengths
from capacity.timing.efficiency import IDEAL, Efficiency, Prior, Priors
from capacity.timing.profiles import JETSTREAM, NOISE
from capacity.work.setting import Setting
from capacity.work.software import LEAST, SOFTWARE, Software
from server.models.catalogue import catalogue

REQUESTS = 2000
_SEED = 0
# What a model's tokenizer and answers, and the date of the software, change for all its rows alike.
_MODEL_SPREAD = 0.15


def setting_of(
    row: PublishedRow, chips: Chips, software: Software = SOFTWARE["jetstream"]
) -> Setting:
    """As the page describes it."""
    return Setting(
        catalogue()[row.model],
        find_slice(f"{row.chip}-{row.chips}", chips),
        weights=row.weights,
        cache=row.cache,
        sharding=row.sharding,
        slots=row.batch,
        cache_length=row.cache_length,
        software=software,
    )


def expects(
    row: PublishedRow, chips: Chips, software: Software = SOFTWARE["jetstream"]
) -> Observation:
    """What the page measured of a row, and how `software` is timed at the same."""
    lengths = parse_lengths(SAMPLE).draw(REQUESTS, _SEED).capped(row.most_output)
    run = batch_run(setting_of(row, chips, software), lengths)

    def predict(efficiency: Efficiency) -> float:
        return batch_throughput(run, efficiency)

    name = (
        f"{row.model} on {run.setting.slice.name}, {row.variant}, batch {row.batch}, "
        f"cache {row.cache_length:,}"
    )
    return Observation(name, _measured(row), predict, frozenset({row.model}))


def _bound(row: PublishedRow, chips: Chips) -> float:
    return expects(row, chips, LEAST).predict(IDEAL)


def _measured(row: PublishedRow) -> float:
    return row.values["tokens_per_s"]


def _priors(rows: Sequence[PublishedRow]) -> Priors:
    effects = {f"effect@{row.model}": Prior(1.0, _MODEL_SPREAD) for row in rows}
    return {**JETSTREAM, **effects}


MODEL = PageModel(
    number="002",
    metric="tokens_per_s",
    unit="tokens/s",
    measured=_measured,
    group=lambda row: "TPU v5e",
    expects=expects,
    bound=_bound,
    priors=_priors,
    noise=NOISE["jetstream"],
    apart=lambda row: row.model,
    notes=(
        "lengths are 2,000 draws from this project's sample data set, which follows ShareGPT's",
        "with 2,000 requests a large batch runs half empty at the end: at 1,024 slots about a "
        "third of all slot-steps make a token",
        "a factor a model (spread 15%) stands for its tokenizer, its answers and the date",
    ),
)
