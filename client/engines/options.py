"""The command line of the in-process benchmark."""

import argparse
import hashlib
import json
import math
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.engines.measuring import Measuring, flag
from client.engines.presets import GENERATING, PRESETS, SIZES, preset_values
from client.engines.showing import DEFINITIONS, OURS, Showing
from client.engines.variant import ENGINES
from client.errors import UsageError
from client.parser import Parser

_MEASURED = tuple(name for name in Measuring.__dataclass_fields__ if name not in ("preset", "task"))
_SHOWN = tuple(Showing.__dataclass_fields__)


@dataclass(frozen=True)
class OfflineOptions:
    """Everything the command was asked to do. Times in seconds."""

    measuring: Measuring
    showing: Showing
    out: Path | None = None
    point_seconds: float = 3600.0
    stop_seconds: float = 20.0
    retry_failed: bool = False
    only_show: bool = False
    bandwidth_gbps: float | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        for name in ("point_seconds", "stop_seconds", "bandwidth_gbps", "peak_tflops"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{flag(name)}: a number above 0; got {value}")
        for name in ("transformers_python", "torch_xla_python"):
            path = getattr(self.measuring, name)
            if path is not None and shutil.which(path) is None:
                raise UsageError(f"{flag(name)}: there is no program {path!r}")

    @property
    def settings(self) -> dict[str, Any]:
        """What makes two runs the same one, as JSON values."""
        return {
            **self.measuring.as_json(),
            "bandwidth_gbps": self.bandwidth_gbps,
            "peak_tflops": self.peak_tflops,
        }

    @property
    def folder(self) -> Path:
        """Where it goes; without --out, a folder of its own for each set of settings."""
        if self.out is not None:
            return self.out
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return Path("runs") / f"offline-{self.measuring.preset}-{digest[:8]}"

    @property
    def page(self) -> Path | None:
        """Where the page with charts goes, if there is one."""
        if self.showing.plot is None and self.showing.quality:
            return self.folder / "page.html"
        return self.showing.plot


def parse_offline(argv: Sequence[str]) -> OfflineOptions:
    """Reads the command line. Exits with status 2 and one line when it is wrong."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    try:
        for name, read in _LISTS.items():
            if given[name] is not None:
                given[name] = read(flag(name), given[name])
        given["engine_options"] = _split(given["engine_options"])
        values = preset_values(given.pop("preset"), given.pop("size"))
        values |= {name: given[name] for name in _MEASURED if given[name] is not None}
        shown = {name: given.pop(name) for name in _SHOWN}
        rest = {name: value for name, value in given.items() if name not in _MEASURED}
        return OfflineOptions(Measuring(**values), Showing(**shown), **rest)
    except UsageError as error:
        parser.error(str(error))


def _split(text: str | None) -> tuple[str, ...] | None:
    try:
        return None if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--engine-options: {error}; got {text!r}") from error


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Such as 1,2,4 or 1,128:1024:128: from, to and by how much, the end included."""
    found: list[int] = []
    for word in text.split(","):
        try:
            first, *rest = (int(each) for each in word.split(":"))
            if rest:
                last, step = rest
                found += range(first, last + 1, step)
            else:
                found.append(first)
        except ValueError as error:
            raise UsageError(
                f"{option}: whole numbers or FROM:TO:STEP, separated by commas; got {text!r}"
            ) from error
    if not found or min(found) < 1:
        raise UsageError(f"{option}: numbers from 1 on; got {text!r}")
    return tuple(found)


def _words(option: str, text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise UsageError(f"{option}: words separated by commas; got {text!r}")
    return words


_LISTS: dict[str, Callable[[str, str], tuple[Any, ...]]] = {
    "models": _words,
    "engines": _words,
    "quantize": _words,
    "attention": _words,
    "transformers_kinds": _words,
    "transformers_attention": _words,
    "torch_xla_kinds": _words,
    "batch_sizes": _numbers,
    "prompts": _numbers,
    "contexts": _numbers,
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.offline",
        description="Measures engines without a server, side by side: each engine at each size in "
        "a process of its own. The same command again does what is missing.",
        epilog="Lists are separated by commas; numbers may be FROM:TO:STEP. Status: 0 done, 1 some "
        "points failed or took too long, 2 bad input, 130 interrupted.",
        allow_abbrev=False,
    )
    _add_what(parser.add_argument_group("what, by default as the preset says"))
    _add_engines(parser.add_argument_group("engines"))
    _add_run(parser.add_argument_group("run"))
    _add_shown(parser.add_argument_group("shown; may change from call to call"))
    return parser


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preset", choices=tuple(PRESETS), default=GENERATING, help="default: %(default)s"
    )
    group.add_argument(
        "--size", choices=SIZES, default=SIZES[0],
        help="the published page's own sizes, or small ones of the same families",
    )  # fmt: skip
    group.add_argument("--models", help="known names, folders with config.json, .gguf files")
    group.add_argument("--batch-sizes")
    group.add_argument("--prompts", help="lengths that the prompts of a batch go round through")
    group.add_argument("--contexts", help="tokens of a row, for passes without KV cache")
    group.add_argument("--new-tokens", type=int, help="tokens made of each row")
    group.add_argument(
        "--minibatch-forwards", type=int, dest="new_tokens", metavar="N",
        help="passes that make a minibatch of uncached-forward (the page: 16)",
    )  # fmt: skip
    group.add_argument("--warmups", type=int, help="runs that do not count")
    group.add_argument("--timed", type=int, help="runs that count, at least")
    group.add_argument("--min-seconds", type=float, help="go on with timed runs for so long")
    group.add_argument("--rounds", type=int, help="all points so often, one after the other")
    group.add_argument("--seed", type=int, help="of weights and token ids")


def _add_engines(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engines", help=f"of {', '.join(ENGINES)}")
    group.add_argument("--quantize", help="weights of loadstone, as its server names them")
    group.add_argument("--attention", help="of loadstone: reference, flash")
    group.add_argument(
        "--transformers-kinds",
        help="weights of transformers: float32, bfloat16, float16, and with bitsandbytes int8, "
        "int8-decomp, nf4, nf4-dq",
    )
    group.add_argument(
        "--transformers-attention", help="auto, eager, sdpa, flash_attention_2 or others it knows"
    )
    group.add_argument(
        "--transformers-python", metavar="PATH",
        help="python of an environment with it (default: this one)",
    )  # fmt: skip
    group.add_argument("--torch-xla-kinds", help="weights of torch_xla: float32, bfloat16")
    group.add_argument("--torch-xla-python", metavar="PATH", help="as above")
    group.add_argument(
        "--engine-options", metavar="WORDS", help="further options of python -m server, quoted"
    )
    group.add_argument("--platform", choices=("cpu", "gpu", "tpu"), help="default: the engine's")
    group.add_argument("--cache-dir", help="of loadstone's compiled programs")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out", type=Path, help="folder (default: runs/offline-PRESET-, and a word for the rest)"
    )
    group.add_argument(
        "--point-seconds", type=float, default=3600.0,
        help="for one point, start included (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--stop-seconds", type=float, default=20.0,
        help="for a point to end before it is killed (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--memory-limit-gib", type=float, help="of a point's heap; what asks for more is oom"
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="try again what has no figure and is not refused",
    )
    group.add_argument(
        "--bandwidth-gbps", type=float, help="GB/s of the devices' memory (default: this CPU's)"
    )
    group.add_argument(
        "--peak-tflops", type=float, help="TFLOP/s of the devices (default: this CPU's, float32)"
    )


def _add_shown(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--only-show", action="store_true", help="what there is; measures nothing")
    group.add_argument(
        "--definition", choices=DEFINITIONS, default=OURS,
        help="units and ratios: ours, or the published page's own (docs/offline.md)",
    )  # fmt: skip
    group.add_argument(
        "--against", type=Path, metavar="FILE", help="offline.json of an earlier run, for ratios"
    )
    group.add_argument(
        "--estimates", type=Path, metavar="FILE",
        help="predictions to print beside forward-loss: JSON, a model's name to runtime_ms and "
        "memory_gib",
    )  # fmt: skip
    group.add_argument(
        "--tdp-watts", type=float, help="of the devices, for energy where none is measured"
    )
    group.add_argument(
        "--quality", type=Path, nargs="+", default=(), metavar="FILE",
        help="records of python -m client.quality, for a page with speed against quality",
    )  # fmt: skip
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help="an HTML page with charts (the report extra)"
    )
