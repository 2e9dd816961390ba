"""Options that several commands share."""

import argparse
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.store import load
from capacity.hardware.chip import Chip
from capacity.hardware.chips import known_chips
from capacity.hardware.host import measure_host
from capacity.hardware.slice import Slice, find_slice
from capacity.memory.need import largest_batch
from capacity.models import find_model
from capacity.timing.profiles import NOISE, PROFILES
from capacity.work.setting import CACHES, COMPUTES, SHARDINGS, Setting
from capacity.work.software import SOFTWARE, find_software
from client.errors import UsageError
from server.quant.schemes import SCHEMES

HOST = "cpu"
_DEFAULT_BATCH = 256


def add_chips(parser: argparse.ArgumentParser) -> None:
    """The chips file."""
    parser.add_argument(
        "--chips", type=Path, metavar="FILE",
        help="TOML that adds chips or corrects their figures, prices too; same form as "
        "capacity/hardware/chips.toml",
    )  # fmt: skip


def add_model(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """A model on a slice; lists with commas where `several`."""
    more = ", or several with commas" if several else ""
    parser.add_argument(
        "--model", required=True, help="a known name, or a directory with a config.json"
    )
    parser.add_argument(
        "--slice",
        required=True,
        metavar="SLICE",
        help=f"such as v5e-8, v5p-2x2x1, h100x8, a100-80g, cpu{more}",
    )
    parser.add_argument("--quantize", default="none", help=f"{', '.join(SCHEMES)}{more}")
    parser.add_argument(
        "--quantize-cache", choices=CACHES, help="default: int8 with --quantize int8, else none"
    )
    parser.add_argument("--sharding", default="model", help=f"{', '.join(SHARDINGS)}{more}")
    parser.add_argument("--cache-length", default="2048", help=f"positions of a slot{more}")
    parser.add_argument(
        "--prefill-chunk", type=int, default=512, help="prompt tokens of a prefill dispatch"
    )
    parser.add_argument(
        "--compute", choices=COMPUTES, help="type of activations; default: bf16, fp32 on cpu"
    )
    parser.add_argument("--software", default="loadstone", help=", ".join(SOFTWARE))


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """What the chips reach."""
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="of `calibrate --out`; default: priors"
    )


def add_page(parser: argparse.ArgumentParser) -> None:
    """The page."""
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="a page with tables, plots and assumptions that works offline",
    )  # fmt: skip


def read_chips(given: argparse.Namespace) -> dict[str, Chip]:
    """The known chips with the user's."""
    return known_chips(given.chips)


def read_slice(name: str, chips: Mapping[str, Chip]) -> Slice:
    """A slice by its name; `cpu` is measured unless a chips file has it."""
    if name.strip().lower() == HOST and HOST not in chips:
        return Slice(host_chip()(), 1)
    return find_slice(name, chips)


def host_chip() -> Callable[[], Chip]:
    """Measures this host's CPU when it is first asked for."""
    measured: list[Chip] = []

    def measure() -> Chip:
        if not measured:
            try:
                measured.append(measure_host(date.today().isoformat()))
            except OSError as error:
                raise UsageError(f"cannot measure this host: {error}") from error
        return measured[0]

    return measure


def setting_of(
    given: argparse.Namespace,
    where: Slice,
    *,
    weights: str,
    sharding: str,
    cache_length: int,
    slots: int,
) -> Setting:
    """The setting of the options, with what may be a list given apart."""
    default = "int8" if weights == "int8" else "none"
    return Setting(
        model=find_model(given.model),
        slice=where,
        weights=weights,
        cache=given.quantize_cache or default,
        compute=given.compute or ("fp32" if where.chip.kind == "cpu" else "bf16"),
        sharding=sharding,
        slots=slots,
        cache_length=cache_length,
        chunk=given.prefill_chunk,
        software=find_software(given.software),
    )


def one_setting(given: argparse.Namespace) -> Setting:
    """The one setting of options without lists; without --batch-size the largest batch that fits,
    at most 256."""
    where = read_slice(given.slice, read_chips(given))
    (length,) = whole_numbers("--cache-length", given.cache_length)[:1]
    least = where.count if given.sharding == "batch" else 1

    def at(slots: int) -> Setting:
        return setting_of(
            given, where, weights=given.quantize, sharding=given.sharding, cache_length=length,
            slots=slots,
        )  # fmt: skip

    if given.batch_size is not None:
        return at(whole_numbers("--batch-size", given.batch_size)[0])
    most = largest_batch(at(least))
    wanted = _DEFAULT_BATCH // least * least
    return at(max(min(most, wanted), least))


def posterior_of(given: argparse.Namespace) -> tuple[Posterior, str]:
    """The efficiencies of --calibration, or the priors of --software; and where they come from."""
    if given.calibration is not None:
        calibration = load(given.calibration)
        if calibration.software != given.software:
            raise UsageError(
                f"{given.calibration} is of {calibration.software}; --software is {given.software}"
            )
        held = calibration.summary
        error = (
            f"; each left out and predicted by the others: median error {held['median']:.1%}, "
            f"largest {held['largest']:.1%}"
            if held
            else ""
        )
        return calibration.posterior, (
            f"calibrated with {len(calibration.data)} measurements on {calibration.chip} "
            f"({given.calibration.name}){error}"
        )
    if given.software not in PROFILES:
        raise UsageError(f"--software {given.software} has no profile; {', '.join(PROFILES)} have")
    posterior = fit([], PROFILES[given.software], NOISE[given.software])
    return posterior, "not calibrated: priors alone, so the intervals are wide"


def words(text: str) -> list[str]:
    """A list with commas. UsageError when it is empty."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise UsageError("a list with commas; got nothing")
    return found


def whole_numbers(option: str, text: str) -> list[int]:
    """A list of whole numbers, 1 or more."""
    found = []
    for word in words(text):
        if not word.isdigit() or int(word) < 1:
            raise UsageError(f"{option}: whole numbers, 1 or more; got {word!r}")
        found.append(int(word))
    return found
