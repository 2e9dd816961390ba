"""The command line of a benchmark run."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from client.errors import UsageError
from client.load.arrivals import check_rate
from client.targets.jetstream import JetStreamSettings
from client.workloads.sharegpt import STARTERS, ShareGPTRules

DATASETS = ("sharegpt", "sharegpt-hub")
WARMUP_MODES = ("none", "sampled", "full")
# Many servers and proxies allow 100 streams a connection; the rest would be queued or refused.
_STREAMS_A_CHANNEL = 80


@dataclass(frozen=True)
class Options:
    """Everything a run was asked to do. `request_rate` inf: all at once."""

    target: JetStreamSettings
    rules: ShareGPTRules
    dataset: str = "sharegpt"
    dataset_path: Path | None = None
    model: str | None = None
    tokenizer: Path | None = None
    num_prompts: int = 1000
    repeat: bool = True
    request_rate: float = math.inf
    seed: int = 0
    warmup_mode: str = "none"
    show_progress: bool = True
    result_dir: Path = Path("runs")
    save_result: bool = False
    save_request_outputs: bool = False
    request_outputs_path: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_prompts < 1:
            raise UsageError(f"--num-prompts: 1 or more; got {self.num_prompts}")
        if self.seed < 0:
            raise UsageError(f"--seed: 0 or more; got {self.seed}")
        if self.dataset == "sharegpt-hub" and self.dataset_path is not None:
            raise UsageError("--dataset sharegpt-hub reads no file; leave out --dataset-path")


def parse_options(argv: Sequence[str] | None) -> Options:
    """Reads the command line. Exits with status 2 and one line when it is wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        return _options(given)
    except UsageError as error:
        parser.error(str(error))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def _options(given: argparse.Namespace) -> Options:
    channels = given.channels
    if channels is None:
        channels = max(4, math.ceil(given.num_prompts / _STREAMS_A_CHANNEL))
    return Options(
        target=JetStreamSettings(
            server=given.server,
            port=given.port,
            channels=channels,
            request_timeout=given.request_timeout,
            connect_timeout=given.connect_timeout,
            health_check=given.health_check,
            send=given.send,
            ignore_eos=given.ignore_eos,
            temperature=given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
        ),
        rules=ShareGPTRules(
            starter=given.conversation_starter,
            min_input_length=given.min_input_length,
            max_input_length=given.max_input_length,
            max_target_length=given.max_target_length,
            max_output_length=given.max_output_length,
            chat_template=given.use_chat_template,
        ),
        dataset=given.dataset,
        dataset_path=given.dataset_path,
        model=given.model,
        tokenizer=given.tokenizer,
        num_prompts=given.num_prompts,
        repeat=given.repeat,
        request_rate=check_rate(given.request_rate),
        seed=given.seed,
        warmup_mode=given.warmup_mode,
        show_progress=not given.disable_tqdm,
        result_dir=given.result_dir,
        save_result=given.save_result,
        save_request_outputs=given.save_request_outputs,
        request_outputs_path=given.request_outputs_file_path,
        metadata=_metadata(given.metadata, given.additional_metadata_metrics_to_save),
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m client.benchmark",
        description="Replays ShareGPT prompts against a JetStream-compatible server and prints "
        "throughput and latency.",
        epilog="Status: 0 all completed, 1 some failed, 2 bad input or no ready server, 130 "
        "interrupted.",
        allow_abbrev=False,
    )
    _add_target(parser.add_argument_group("server"))
    _add_requests(parser.add_argument_group("what is generated"))
    _add_workload(parser.add_argument_group("what is asked"))
    _add_load(parser.add_argument_group("when"))
    _add_results(parser.add_argument_group("results"))
    return parser


def _add_target(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--server", default="0.0.0.0", help="host; 0.0.0.0 is this host (default: %(default)s)"
    )
    group.add_argument("--port", type=int, default=9000, help="gRPC port (default: %(default)s)")
    group.add_argument(
        "--connect-timeout", "--ready-check-timeout-sec", type=float, default=120.0,
        help="seconds to wait until the server is ready (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--no-health-check", dest="health_check", action="store_false",
        help="only connect; do not ask HealthCheck",
    )  # fmt: skip
    group.add_argument(
        "--channels", type=int, help="connections (default: one for each 80 requests, 4 at least)"
    )


def _add_requests(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--request-timeout",
        type=float,
        default=600.0,
        help="seconds a request (default: %(default)s)",
    )
    group.add_argument(
        "--send",
        default="text",
        choices=("text", "tokens"),
        help="form of the prompt (default: %(default)s)",
    )
    group.add_argument(
        "--ignore-eos", action="store_true",
        help="generate all tokens asked for (JetStream itself does not know this)",
    )  # fmt: skip
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    group.add_argument("--top-k", type=int, default=0, help="0 is no limit")
    group.add_argument("--top-p", type=float, default=1.0, help="1 is no limit")


def _add_workload(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset", default="sharegpt", choices=DATASETS,
        help="sharegpt: a file; sharegpt-hub: the public set (needs the hub extra)",
    )  # fmt: skip
    group.add_argument("--dataset-path", type=Path, help="default: the sample that comes with us")
    group.add_argument("--model", help="name for the record (default: the tokenizer's)")
    group.add_argument("--tokenizer", type=Path, help="default: the embedded SmolLM2's")
    group.add_argument(
        "--num-prompts", type=int, default=1000, help="requests to send (default: %(default)s)"
    )
    group.add_argument(
        "--no-repeat", dest="repeat", action="store_false",
        help="send fewer requests rather than a prompt twice",
    )  # fmt: skip
    group.add_argument(
        "--conversation-starter",
        default="human",
        choices=STARTERS,
        help="who speaks first (default: %(default)s)",
    )
    group.add_argument("--use-chat-template", action="store_true", help="send it as a chat")
    group.add_argument(
        "--min-input-length", type=int, default=4, help="tokens (default: %(default)s)"
    )
    group.add_argument(
        "--max-input-length", type=int, default=1024, help="tokens (default: %(default)s)"
    )
    group.add_argument(
        "--max-target-length",
        type=int,
        default=2048,
        help="prompt and output (default: %(default)s)",
    )
    group.add_argument(
        "--max-output-length", type=int, default=0,
        help="tokens to ask for; 0: as many as the reference answer has",
    )  # fmt: skip


def _add_load(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--request-rate", type=float, default=0.0,
        help="requests per second, Poisson; 0 or inf: all at once",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=0, help="of the prompts and arrivals (default: %(default)s)"
    )
    group.add_argument(
        "--warmup-mode", default="none", choices=WARMUP_MODES,
        help="before the run: none, one prompt of each size, or all (default: %(default)s)",
    )  # fmt: skip


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--disable-tqdm", action="store_true", help="no progress line")
    group.add_argument(
        "--result-dir",
        type=Path,
        default=Path("runs"),
        help="where the record goes (default: %(default)s)",
    )
    group.add_argument("--save-result", action="store_true", help="also a file as JetStream's")
    group.add_argument(
        "--metadata", action="append", default=[], metavar="NAME=VALUE", help="kept in the record"
    )
    group.add_argument(
        "--additional-metadata-metrics-to-save", metavar="JSON", help="an object, as --metadata"
    )
    group.add_argument("--save-request-outputs", action="store_true", help="keep generated text")
    group.add_argument("--request-outputs-file-path", type=Path, help="default: beside the record")
