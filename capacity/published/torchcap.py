"""Page 004: forwards with loss, on one card and on eight."""

from collections.abc import Sequence

from capacity.calibration.observation import Observation
from capacity.hardware.slice import Slice
from capacity.published.model import Chips, PageModel
from capacity.published.rows import PublishedRow
from capacity.timing.efficiency import IDEAL, Efficiency, Prior, Priors
from capacity.timing.profiles import NOISE
from capacity.timing.seconds import step_time
from capacity.work.forward import Forward, forward_memory, forward_work, least_work
from server.models.catalogue import catalogue

BATCH, TOKENS = 16, 1024
# What the cards share: OPT's MLP eight ways, CLM's two. Both follow from the rows themselves
# (memory, and the part of the runtime that no card shortens); the page only says eight.
_CARDS = {1: "one card", 8: "eight cards"}
_MLP_SPLIT = {"opt": 8, "clm": 2}


def family(row: PublishedRow) -> str:
    """Which implementation of tensor parallelism: opt or clm."""
    return row.model.partition("-")[0]


def forward_of(row: PublishedRow) -> Forward:
    """The forward of a row."""
    split = 1 if row.chips == 1 else _MLP_SPLIT[family(row)]
    return Forward(catalogue()[row.model], BATCH, TOKENS, mlp_split=split)


def memory_of(row: PublishedRow) -> float:
    """Bytes at the peak: on eight cards the logits are returned beside the loss."""
    return forward_memory(forward_of(row), kept=row.chips > 1)


def _expects(row: PublishedRow, chips: Chips) -> Observation:
    work, where = forward_work(forward_of(row)), Slice(chips[row.chip], row.chips)

    def predict(efficiency: Efficiency) -> float:
        # The sum of kernel times: no host.
        return float(step_time(work, where, efficiency).device) * 1e3

    tags = frozenset({family(row)}) if row.chips > 1 else frozenset()
    return Observation(f"{row.model} on {where.name}", _measured(row), predict, tags)


def _bound(row: PublishedRow, chips: Chips) -> float:
    # All cards share all of the work, and talk for nothing.
    least = least_work(Forward(catalogue()[row.model], BATCH, TOKENS, windowed=True))
    return float(step_time(least, Slice(chips[row.chip], 1), IDEAL).device) * 1e3 / row.chips


def _measured(row: PublishedRow) -> float:
    return row.values["runtime_ms"]


def _priors(rows: Sequence[PublishedRow]) -> Priors:
    del rows
    return {
        "weights": Prior(0.75, 0.0),
        "cache": Prior(0.7, 0.0),
        "elementwise": Prior(0.7, 0.3),
        "compute": Prior(0.7, 0.4),
        "link": Prior(0.2, 0.0),
        "link@opt": Prior(0.2, 1.0),
        "link@clm": Prior(0.2, 1.0),
    }


MODEL = PageModel(
    number="004",
    metric="runtime_ms",
    unit="ms",
    measured=_measured,
    group=lambda row: f"{row.chip}, {_CARDS[row.chips]}",
    expects=_expects,
    bound=_bound,
    priors=_priors,
    noise=NOISE["torch"],
    # What one card reaches is known when eight are looked at.
    helps=lambda other, group: other == group.replace(_CARDS[8], _CARDS[1]) != group,
    transfers=(("a5000, one card", "a6000, one card"),),
    notes=(
        "eight cards: CLM's rows fit an MLP split over two cards, not eight (memory and runtime), "
        "OPT's one over eight; `link` is what their all-reduces reach of the bus, fitted to them",
        "memory of opt-6.7b on eight cards is not explained: the split weights and the logits make "
        "9.24 GiB",
    ),
)
