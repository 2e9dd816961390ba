"""`python -m capacity compile`: the engine's own programs, compiled for chips that are not here."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from capacity.commands.compile_page import make_page
from capacity.commands.options import add_chips, read_chips, read_slice, setting_of
from capacity.compiled.answer import Answer
from capacity.compiled.ask import PROGRAMS, Ask
from capacity.compiled.page import ask_of, find_largest
from capacity.compiled.process import Compiler, compiler
from capacity.compiled.roofline import throughput
from capacity.compiled.search import Largest
from capacity.compiled.target import Target, target_of
from capacity.serving.lengths import SAMPLE, Lengths, parse_lengths
from capacity.tables.compiled import render_memory, render_programs
from capacity.tables.markdown import fixed
from capacity.work.setting import CACHES, SHARDINGS, Setting
from client.errors import UsageError
from server.quant.schemes import SCHEMES

FITS, REFUSED = 0, 1
DEFAULT_CACHE = Path.home() / ".cache" / "loadstone" / "compiled"
_DEFAULT_SECONDS = 3600.0
_PAGES = ("002",)


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    what = parser.add_argument_group("what is compiled")
    what.add_argument("--model", help="a known name, or a directory with a config.json")
    what.add_argument(
        "--slice", "--topology", dest="slice", metavar="SLICE",
        help="such as v5e-8, v6e-4, v5p-8, v4-8, h100, h200, cpu",
    )  # fmt: skip
    what.add_argument("--quantize", default="none", help=f"weights: {', '.join(SCHEMES)}")
    what.add_argument(
        "--quantize-cache", choices=CACHES, help="default: int8 with --quantize int8, else none"
    )
    what.add_argument("--sharding", default="model", help=", ".join(SHARDINGS))
    what.add_argument("--batch-size", type=int, help="slots; may be left out with --largest-batch")
    what.add_argument("--cache-length", type=int, default=2048, help="positions of a slot")
    what.add_argument(
        "--prefill-chunk", type=int, default=512, help="prompt tokens of a prefill dispatch"
    )
    what.add_argument("--decode-steps", type=int, default=1, help="decode steps of a dispatch")
    what.add_argument(
        "--programs", default=PROGRAMS[0],
        help=f"{', '.join(PROGRAMS)}: the decode step and the prefills that read the whole cache, "
        "that decode step alone, or all that the engine compiles (default: %(default)s)",
    )  # fmt: skip
    what.add_argument(
        "--page", choices=_PAGES, help="the published rows of this page, in place of --model"
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--largest-batch", action="store_true", help="the largest batch that the compiler takes"
    )
    search.add_argument(
        "--batch-step", type=int, default=8, help="batches are its multiples (default: %(default)s)"
    )
    search.add_argument(
        "--compiles",
        type=int,
        default=6,
        help="the most batches to try; with --page, 0 tries the published alone "
        "(default: %(default)s)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--present", action="store_true", help="for the GPUs in this machine, not described ones"
    )
    how.add_argument(
        "--python", type=Path, metavar="FILE", help="the interpreter that has the compiler"
    )
    how.add_argument("--time-limit", type=float, default=_DEFAULT_SECONDS, metavar="SECONDS")
    how.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE, metavar="DIR")
    how.add_argument("--lengths", default=SAMPLE, help="of requests, as for `estimate`")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, too")
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints what the compiler says; status 1 when it refuses what was asked."""
    least = {"batch_step": 1, "compiles": 0 if given.page is not None else 1}
    for name, low in least.items():
        if (got := getattr(given, name)) < low:
            raise UsageError(f"--{name.replace('_', '-')}: {low} or more; got {got}")
    if not given.time_limit > 0:
        raise UsageError(f"--time-limit: seconds above 0; got {given.time_limit:g}")
    if given.page is not None:
        return _run_page(given)
    if given.model is None or given.slice is None:
        raise UsageError("give --model and --slice, or --page")
    if given.batch_size is None and not given.largest_batch:
        raise UsageError("give --batch-size, or --largest-batch to search for it")
    return _run_one(given)


def _run_one(given: argparse.Namespace) -> int:
    setting = _setting(given)
    target = target_of(setting.slice, given.present)
    ask = ask_of(setting, given.programs, target, given.decode_steps)
    best: Largest | None = None
    with _compiler(given, target) as opened:
        if given.largest_batch:
            best = find_largest(setting, ask, given.batch_step, given.compiles, opened.ask)
        slots = best.slots if best is not None and best.slots else setting.slots
        answer = best.answer if best is not None else opened.ask(ask)
    lengths = parse_lengths(given.lengths)
    if given.json:
        text = json.dumps(_as_json(ask.with_slots(slots), answer, best), indent=1)
    else:
        text = "\n".join(_report(setting, slots, given.decode_steps, answer, best, lengths))
    _put(text, given.out)
    return FITS if answer.fits else REFUSED


def _setting(given: argparse.Namespace) -> Setting:
    where = read_slice(given.slice, read_chips(given))
    least = where.count if given.sharding == "batch" else 1
    given.compute, given.software = None, "loadstone"
    return setting_of(
        given, where, weights=given.quantize, sharding=given.sharding,
        cache_length=given.cache_length,
        slots=least if given.batch_size is None else given.batch_size,
    )  # fmt: skip


def _run_page(given: argparse.Namespace) -> int:
    text, ended = make_page(given, lambda target: _compiler(given, target))
    _put(text, given.out)
    if ended is not None:
        raise ended
    return FITS


def _compiler(
    given: argparse.Namespace, target: Target
) -> contextlib.AbstractContextManager[Compiler]:
    return compiler(target, given.cache_dir, given.python, given.time_limit, _line)


def _line(text: str) -> None:
    """Above the progress bar."""
    tqdm.write(text, file=sys.stderr)


def _report(
    setting: Setting,
    slots: int,
    steps: int,
    answer: Answer,
    best: Largest | None,
    lengths: Lengths,
) -> list[str]:
    where = setting.slice
    lines = [
        f"{setting.model.name} on {where.name} ({answer.device_kind}), weights {setting.weights}, "
        f"cache {setting.cache}, sharding {setting.sharding}, {slots:,} slots of "
        f"{answer.cache_length:,} positions",
        "Compiled with "
        + ", ".join(f"{name} {version}" for name, version in answer.versions.items()),
        "",
        *render_programs(answer, where, setting.weights),
        "",
        *render_memory(answer),
    ]
    if best is not None:
        tried = ", ".join(f"{each:,}" for each in best.asked)
        bound = "no more fit" if best.exact else "more may fit: raise --compiles"
        lines += ["", f"Largest batch: {best.slots:,} ({bound}; tried {tried})."]
    reached = [
        throughput(
            answer, slots, steps, where, setting.weights, lengths.inputs, lengths.outputs, expected
        )
        for expected in (False, True)
    ]
    if answer.fits and reached[0] is not None and reached[1] is not None:
        lines += [
            "",
            f"No run of these programs can pass {fixed(reached[0].decode, 0)} output tokens/s "
            f"decoding with every slot busy, {fixed(reached[0].served, 0)} with the prompts "
            f"({lengths}); with the compiler's cycles {fixed(reached[1].decode, 0)} and "
            f"{fixed(reached[1].served, 0)}. Neither is a measurement.",
        ]
    return lines


def _as_json(ask: Ask, answer: Answer, best: Largest | None) -> dict[str, object]:
    found: dict[str, object] = {
        "ask": ask.as_dict(),
        "fits": answer.fits,
        "memory_bytes": answer.memory,
        "answer": answer.as_dict(),
    }
    if best is not None:
        found["largest_batch"] = {
            "slots": best.slots, "exact": best.exact, "asked": list(best.asked),
        }  # fmt: skip
    return found


def _put(text: str, out: Path | None) -> None:
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
