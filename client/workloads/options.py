"""The command line of workloads."""

import argparse
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.workloads.hub import HubSettings
from client.workloads.lengths import DISTRIBUTIONS, LengthSettings
from client.workloads.limits import Limits
from client.workloads.multi_turn import MultiTurn
from client.workloads.settings import KINDS, WorkloadSettings
from client.workloads.sharegpt import STARTERS
from client.workloads.synthetic import SharedPrefixes
from client.workloads.trace import OVERLONG, TraceSettings

# What vLLM and SGLang call them.
_ALIASES = {"random": "synthetic", "prefix_repetition": "prefix", "custom": "jsonl"}
_CONVERSATIONS = ("sharegpt", "sharegpt-hub", "hf")
_OWN_DATA = (*_CONVERSATIONS, "jsonl")
_MADE_UP = ("synthetic", "prefix")
# Options that would do nothing for the other kinds.
_ONLY_FOR = {
    "conversation_starter": _CONVERSATIONS,
    "use_chat_template": _OWN_DATA,
    "min_input_length": _OWN_DATA,
    "multi_turn": _CONVERSATIONS,
    "think_time": _CONVERSATIONS,
    "random_input_len": _MADE_UP,
    "random_output_len": _MADE_UP,
    "random_range_ratio": _MADE_UP,
    "random_distribution": _MADE_UP,
    "random_sigma": _MADE_UP,
    "prefix_len": ("prefix",),
    "num_prefixes": ("prefix",),
    "trace_path": ("trace",),
    "trace_speed": ("trace", "jsonl"),
    "trace_scale": ("trace",),
    "trace_overlong": ("trace",),
    "hf_split": ("hf",),
    "hf_subset": ("hf",),
    "prompt_column": ("hf",),
    "answer_column": ("hf",),
}


def add_workload_options(group: argparse._ArgumentGroup) -> None:
    """Adds what says what is asked; `workload_settings` reads it."""
    group.add_argument(
        "--dataset", "--dataset-name", default="sharegpt", metavar="KIND",
        help="sharegpt (default): a file; sharegpt-hub: the public set; synthetic (random): "
        "made-up prompts; prefix: made-up with shared beginnings; trace: lengths and times of an "
        "Azure or Mooncake trace; jsonl: your own; hf:NAME[:SPLIT]: any data set of Hugging "
        "Face's library, by name or path",
    )  # fmt: skip
    group.add_argument(
        "--dataset-path", type=Path, metavar="FILE",
        help="for sharegpt (default: the sample that comes with us), jsonl and trace",
    )  # fmt: skip
    group.add_argument(
        "--no-repeat", dest="repeat", action="store_false",
        help="send fewer requests rather than a prompt twice",
    )  # fmt: skip
    _add_lengths(group)
    _add_conversations(group)
    _add_made_up(group)
    _add_traces(group)
    _add_hub(group)


def workload_settings(given: argparse.Namespace) -> WorkloadSettings:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    kind, name = _kind(given.dataset, given.dataset_path)
    _refuse_idle(given, kind)
    return WorkloadSettings(
        kind=kind,
        path=_path(given, kind),
        repeat=given.repeat,
        starter=given.conversation_starter or "human",
        chat_template=bool(given.use_chat_template),
        limits=Limits(given.min_input_length, given.max_input_length, given.max_target_length),
        output_length=given.max_output_length,
        multi_turn=_multi_turn(given),
        lengths=_lengths(given),
        prefixes=_prefixes(given, kind),
        trace=TraceSettings(
            speed=_or(given.trace_speed, 1.0),
            scale=_or(given.trace_scale, 1.0),
            overlong=given.trace_overlong or "clip",
        ),
        hub=_hub(given, name) if kind == "hf" else None,
    )


def _add_lengths(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--min-input-length", type=int, metavar="N",
        help="tokens of a prompt (default: 4 for conversations, else no limit)",
    )  # fmt: skip
    group.add_argument(
        "--max-input-length", type=int, metavar="N",
        help="tokens of a prompt; made-up prompts and traces are cut to it (default: 1024 for "
        "conversations, else no limit)",
    )  # fmt: skip
    group.add_argument(
        "--max-target-length", type=int, metavar="N",
        help="tokens of prompt and output, likewise (default: 2048 for conversations)",
    )  # fmt: skip
    group.add_argument(
        "--max-output-length", "--output-len", "--sharegpt-output-len", type=int, default=0,
        metavar="N", help="tokens to ask for; 0: as many as the data say (default)",
    )  # fmt: skip


def _add_conversations(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--conversation-starter", choices=STARTERS, help="who speaks first (default: human)"
    )
    group.add_argument(
        "--use-chat-template", action="store_true", default=None,
        help="wrap prompts as the model's chats",
    )  # fmt: skip
    group.add_argument(
        "--multi-turn", nargs="?", type=int, const=0, metavar="MAX_TURNS",
        help="ask every turn of a conversation, with the history before it",
    )  # fmt: skip
    group.add_argument(
        "--think-time", type=float, metavar="SECONDS",
        help="with --multi-turn: mean wait after an answer, exponential (default: 0)",
    )  # fmt: skip


def _add_made_up(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--random-input-len", "--input-len", type=int, metavar="N",
        help="tokens of a synthetic prompt, after any shared prefix (default: 1024)",
    )  # fmt: skip
    group.add_argument(
        "--random-output-len", type=int, metavar="N", help="tokens to ask for (default: 128)"
    )
    group.add_argument(
        "--random-range-ratio", type=float, metavar="R",
        help="lengths from LEN*(1-R) to LEN*(1+R), uniform (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--random-distribution", choices=DISTRIBUTIONS,
        help="of lengths (default: uniform, within --random-range-ratio)",
    )  # fmt: skip
    group.add_argument(
        "--random-sigma", type=float, metavar="S",
        help="of a lognormal: standard deviation of the logarithm (default: 0.5)",
    )  # fmt: skip
    group.add_argument(
        "--prefix-len", "--prefix-repetition-prefix-len", type=int, metavar="N",
        help="tokens of a shared prefix (default: 256)",
    )  # fmt: skip
    group.add_argument(
        "--num-prefixes", "--prefix-repetition-num-prefixes", type=int, metavar="N",
        help="different prefixes, used equally often (default: 1)",
    )  # fmt: skip


def _add_traces(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--trace-path", type=Path, metavar="FILE", help="Azure CSV, Mooncake JSONL")
    group.add_argument(
        "--trace-speed", type=float, metavar="X", help="2: in half the time (default: 1)"
    )
    group.add_argument(
        "--trace-scale", type=float, metavar="X", help="0.5: half the lengths (default: 1)"
    )
    group.add_argument(
        "--trace-overlong", choices=OVERLONG,
        help="cut requests over the limits or leave them out (default: clip)",
    )  # fmt: skip


def _add_hub(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--hf-split", metavar="NAME", help="of an hf data set (default: train)")
    group.add_argument("--hf-subset", metavar="NAME", help="of an hf data set")
    group.add_argument(
        "--prompt-column", metavar="NAME", help="of an hf data set: texts, or lists of turns"
    )
    group.add_argument(
        "--answer-column", metavar="NAME", help="of an hf data set: its lengths are asked for"
    )


def _kind(dataset: str, path: Path | None) -> tuple[str, str]:
    """The kind, and of an hf data set the name: after hf:, or as vLLM has it in --dataset-path."""
    kind, colon, name = dataset.partition(":")
    if kind == "hf" and colon and path is None:
        return kind, name
    if dataset == "hf" and path is not None:
        return dataset, str(path)
    kind = _ALIASES.get(dataset, dataset)
    if kind == "hf" or kind not in KINDS:
        known = [each for each in KINDS if each != "hf"]
        raise UsageError(f"--dataset: {', '.join(known)} or hf:NAME[:SPLIT]; got {dataset!r}")
    return kind, ""


def _refuse_idle(given: argparse.Namespace, kind: str) -> None:
    for name, kinds in _ONLY_FOR.items():
        if getattr(given, name) is not None and kind not in kinds:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is for --dataset {' or '.join(kinds)}, not {kind}; leave it out"
            )


def _path(given: argparse.Namespace, kind: str) -> Path | None:
    path: Path | None = None if kind == "hf" else given.dataset_path
    if given.trace_path is not None and path is not None:
        raise UsageError("--trace-path and --dataset-path both name the trace; give one")
    return given.trace_path or path


def _multi_turn(given: argparse.Namespace) -> MultiTurn | None:
    if given.multi_turn is None:
        if given.think_time is not None:
            raise UsageError("--think-time is between the turns of --multi-turn; give both")
        return None
    return MultiTurn(given.multi_turn, _or(given.think_time, 0.0))


def _lengths(given: argparse.Namespace) -> LengthSettings:
    fixed, drawn = given.max_output_length, given.random_output_len
    if fixed and drawn is not None and fixed != drawn:
        raise UsageError(f"--output-len {fixed} and --random-output-len {drawn} differ; give one")
    if given.random_sigma is not None and given.random_distribution != "lognormal":
        raise UsageError("--random-sigma is for --random-distribution lognormal; give both")
    return LengthSettings(
        inputs=_or(given.random_input_len, 1024),
        outputs=_or(drawn, 128),
        distribution=given.random_distribution or "uniform",
        range_ratio=_or(given.random_range_ratio, 0.0),
        sigma=_or(given.random_sigma, 0.5),
    )


def _prefixes(given: argparse.Namespace, kind: str) -> SharedPrefixes | None:
    if kind != "prefix":
        return None
    return SharedPrefixes(_or(given.prefix_len, 256), _or(given.num_prefixes, 1))


def _hub(given: argparse.Namespace, name: str) -> HubSettings:
    name, colon, split = name.partition(":")
    if colon and given.hf_split is not None:
        raise UsageError(f"hf:{name}:{split} and --hf-split both give the split; give one")
    return HubSettings(
        name=name,
        split=split if colon else _or(given.hf_split, "train"),
        subset=given.hf_subset,
        prompt_column=given.prompt_column,
        answer_column=given.answer_column,
    )


def _or(value: Any, default: Any) -> Any:
    """The value given, which may be 0, or else the default."""
    return default if value is None else value
