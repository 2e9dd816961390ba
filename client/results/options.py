"""The command line of results."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from client.calibration.kept import DEFAULT_PATH
from client.errors import UsageError
from client.results.cost import ChipPrice, chip_price
from client.results.goodput import ServiceLevel, parse_goodput
from client.results.statistics import LATENCIES, parse_latencies, parse_percentiles


@dataclass(frozen=True)
class ResultSettings:
    """What is reported, and where it goes."""

    folder: Path = Path("runs")
    show_progress: bool = True
    level: ServiceLevel | None = None
    price: ChipPrice | None = None
    percentiles: tuple[float, ...] = ()
    latencies: tuple[str, ...] = LATENCIES
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    calibration: Path = DEFAULT_PATH
    save_outputs: bool = False
    outputs_path: Path | None = None
    save_jetstream: bool = False
    save_vllm: bool = False
    vllm_detailed: bool = False
    vllm_name: str | None = None
    vllm_append: bool = False


def add_result_options(group: argparse._ArgumentGroup) -> None:
    """Adds what is reported; `result_settings` reads it."""
    group.add_argument("--disable-tqdm", action="store_true", help="no progress line")
    group.add_argument(
        "--goodput", nargs="+", metavar="NAME:MS",
        help="service level, such as ttft:500 tpot:50; also itl (p99 of a request) and e2el",
    )  # fmt: skip
    group.add_argument("--chip-hour-price", type=float, metavar="P", help="gives cost per token")
    group.add_argument("--chips", type=int, help="how many of them serve (default: 1)")
    group.add_argument(
        "--metric-percentiles", default="", metavar="P,..", help="more than 50,90,99"
    )
    group.add_argument(
        "--percentile-metrics", default="", metavar="NAME,..",
        help="latencies in vLLM's file (default: all of ttft,tpot,itl,e2el)",
    )  # fmt: skip
    group.add_argument(
        "--result-dir", type=Path, default=Path("runs"),
        help="where the record goes (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--save-result", action="store_true", help="also files as JetStream's and vLLM's"
    )
    group.add_argument("--save-detailed", action="store_true", help="vLLM's with every request")
    group.add_argument("--append-result", action="store_true", help="add to vLLM's file")
    group.add_argument("--result-filename", metavar="NAME", help="of vLLM's file")
    group.add_argument("--label", help="kept in the record, and part of vLLM's file name")
    group.add_argument(
        "--metadata", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="kept in the record",
    )  # fmt: skip
    group.add_argument(
        "--additional-metadata-metrics-to-save", metavar="JSON", help="an object, as --metadata"
    )
    group.add_argument("--save-request-outputs", action="store_true", help="keep generated text")
    group.add_argument("--request-outputs-file-path", type=Path, help="default: beside the record")
    group.add_argument(
        "--calibration", type=Path, default=DEFAULT_PATH, metavar="FILE",
        help="what client.calibrate kept (default: %(default)s)",
    )  # fmt: skip


def result_settings(given: argparse.Namespace) -> ResultSettings:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    percentiles, latencies = given.metric_percentiles, given.percentile_metrics
    return ResultSettings(
        folder=given.result_dir,
        show_progress=not given.disable_tqdm,
        level=parse_goodput(given.goodput) if given.goodput else None,
        price=chip_price(given.chip_hour_price, given.chips),
        percentiles=parse_percentiles(percentiles) if percentiles else (),
        latencies=parse_latencies(latencies) if latencies else LATENCIES,
        label=given.label,
        metadata=_metadata(given.metadata, given.additional_metadata_metrics_to_save),
        calibration=given.calibration,
        save_outputs=given.save_request_outputs,
        outputs_path=given.request_outputs_file_path,
        save_jetstream=given.save_result,
        save_vllm=given.save_result or given.save_detailed or given.result_filename is not None,
        vllm_detailed=given.save_detailed,
        vllm_name=given.result_filename,
        vllm_append=given.append_result,
    )


def _metadata(pairs: Sequence[str], text: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if text is not None:
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise UsageError(f"--additional-metadata-metrics-to-save: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"--additional-metadata-metrics-to-save: a JSON object; got {text}")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--metadata: NAME=VALUE; got {pair!r}")
        values[name] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
