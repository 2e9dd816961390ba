"""The command line of quality runs."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.errors import UsageError
from client.grading.form import FORMS
from client.grading.humaneval import HumanEvalSettings
from client.grading.row import KV_CACHES, rows, served
from client.grading.settings import (
    IN_PROCESS,
    JudgeSettings,
    PerplexitySettings,
    QualityOptions,
)
from client.grading.speed import SpeedSettings
from client.grading.text import TextSettings
from client.grading.windows import Sliding
from client.judging.judge import UNSAFE_FLAG
from client.judging.limits import Limits
from client.parser import Parser
from client.results.host import describe_host
from client.targets.in_process import quantization_schemes
from client.targets.options import add_request_options, add_target_options, target_settings
from client.targets.settings import ENDPOINTS

DEFAULT_MODEL = "smollm2-135m"


def parse_quality(argv: Sequence[str]) -> QualityOptions:
    """Reads the command line. Exits with status 2 and one line when it is wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        return _options(given)
    except UsageError as error:
        parser.error(str(error))


def _options(given: argparse.Namespace) -> QualityOptions:
    target = target_settings(given)
    if target.ignore_eos:
        raise UsageError("--ignore-eos: a program ends where the model ends it")
    local = target.kind == IN_PROCESS
    wanted = (
        rows(_words(given.quantize), _words(given.kv_cache), quantization_schemes())
        if local
        else (served(given.label or "served"),)
    )
    model = given.model or (DEFAULT_MODEL if local else target.model)
    if target.kind in ENDPOINTS and target.model is None:
        target = replace(target, model=given.model)  # as everywhere, what the server is asked for
    return QualityOptions(
        rows=wanted,
        target=target,
        engine=_engine_words(given, model) if local else (),
        batch=given.batch_size,
        model=model,
        tokenizer=given.tokenizer,
        perplexity=_perplexity_settings(given),
        humaneval=_humaneval_settings(given) if given.humaneval or given.problems else None,
        speed=_speed_settings(given),
        judge=_judge_settings(given),
        problems=given.problems,
        out=given.out,
        check_judge=given.check_judge,
    )


def _engine_words(given: argparse.Namespace, model: str | None) -> tuple[str, ...]:
    named = {
        "--model": model,
        "--checkpoint": given.checkpoint,
        "--tokenizer": given.tokenizer,
        "--batch-size": given.batch_size,
    }
    words = [word for name, value in named.items() if value for word in (name, str(value))]
    return (*words, *shlex.split(given.engine))


def _perplexity_settings(given: argparse.Namespace) -> PerplexitySettings | None:
    if given.text is None:
        return None
    text = TextSettings(given.text, given.hf_subset, given.text_column, given.tokens)
    sliding = Sliding(given.window, given.stride or max(given.window // 2, 1))
    return PerplexitySettings(text, sliding, min(given.chunk, given.window))


def _humaneval_settings(given: argparse.Namespace) -> HumanEvalSettings:
    try:
        ks = tuple(int(word) for word in _words(given.pass_at))
    except ValueError:
        raise UsageError(
            f"--pass-at: whole numbers separated by commas; got {given.pass_at!r}"
        ) from None
    return HumanEvalSettings(
        form=given.prompt_form,
        samples=given.samples,
        ks=ks,
        max_tokens=given.max_new_tokens,
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        seed=given.seed,
        first=given.first_problems,
    )


def _speed_settings(given: argparse.Namespace) -> SpeedSettings | None:
    if not given.speed:
        return None
    return SpeedSettings(
        given.batch_size, given.speed_prompt, given.speed_tokens, given.speed_rounds
    )


def _judge_settings(given: argparse.Namespace) -> JudgeSettings:
    seconds = given.judge_cpu_seconds
    limits = Limits(seconds, given.judge_wall_seconds or 3.0 * seconds, given.judge_memory_mib)
    workers = given.judge_workers or describe_host()["cores"] or 1
    return JudgeSettings(limits, workers, given.accept_unsafe_judge)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.quality",
        description="Perplexity and passed programs of a model under each way of storing it, "
        "beside its speed and bytes. The same command again does what is missing.",
        epilog="Status: 0 every row is complete, 1 some could not be measured (or, with "
        "--check-judge, something is not as it should be), 2 bad input, 130 interrupted.",
        allow_abbrev=False,
    )
    _add_rows(parser.add_argument_group("rows of the table"))
    _add_perplexity(parser.add_argument_group("perplexity"))
    _add_humaneval(parser.add_argument_group("programs (HumanEval)"))
    _add_judge(parser.add_argument_group("judge"))
    _add_speed(parser.add_argument_group("speed"))
    target = parser.add_argument_group("another server, for programs and speed")
    add_target_options(target)
    target.add_argument("--label", help="what to call its row, such as how it stores the model")
    add_request_options(parser.add_argument_group("what is generated"))
    parser.set_defaults(backend=IN_PROCESS)
    return parser


def _add_rows(group: argparse._ArgumentGroup) -> None:
    known = ", ".join(quantization_schemes())
    group.add_argument(
        "--quantize", default="all", metavar="LIST",
        help=f"ways to store weights, separated by commas, of {known}; or all (default)",
    )  # fmt: skip
    group.add_argument(
        "--kv-cache", default="none", metavar="LIST",
        help=f"of {', '.join(KV_CACHES)}; each with each of --quantize (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--model", help=f"as for the server (default: {DEFAULT_MODEL})")
    group.add_argument("--checkpoint", type=Path, help="as for the server")
    group.add_argument("--tokenizer", type=Path, help="default: the checkpoint's own")
    group.add_argument(
        "--batch-size", type=int, default=32,
        help="slots, requests under way, and the batch of the speed (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--out",
        type=Path,
        help="folder (default: runs/quality-MODEL-, and a word for the settings)",
    )


def _add_perplexity(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--text", metavar="TEXT",
        help="a file of plain text, or hf:NAME[:SPLIT] (test) of Hugging Face's library",
    )  # fmt: skip
    group.add_argument("--hf-subset", help="of hf:NAME, such as wikitext-2-raw-v1")
    group.add_argument("--text-column", help="of hf:NAME (default: text)")
    group.add_argument("--tokens", type=int, help="how many from its beginning (default: all)")
    group.add_argument(
        "--window", type=int, default=1024,
        help="tokens that see each other (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--stride", type=int, help="tokens between two windows (default: half a window)"
    )
    group.add_argument(
        "--chunk", type=int, default=512, help="tokens read in a dispatch (default: %(default)s)"
    )


def _add_humaneval(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--humaneval", action="store_true", help="let it write programs")
    group.add_argument(
        "--problems", type=Path, metavar="FILE",
        help="others in HumanEval's form, .jsonl or .jsonl.gz (default: the quality extra's)",
    )  # fmt: skip
    group.add_argument("--first-problems", type=int, metavar="N", help="only so many, for a look")
    group.add_argument(
        "--prompt-form", choices=tuple(FORMS), default="continuation",
        help="continuation: the model goes on with the file; chat: it is asked for the function, "
        "through its chat template (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max-new-tokens", type=int, default=384, help="an answer (default: %(default)s)"
    )
    group.add_argument(
        "--samples", type=int, default=1, help="tries a problem (default: %(default)s)"
    )
    group.add_argument(
        "--pass-at", default="1", metavar="LIST", help="such as 1,10 (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")


def _add_judge(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--check-judge", action="store_true",
        help="only say what contains programs here, and judge the problems' own solutions and "
        "empty ones",
    )  # fmt: skip
    limits = Limits()
    group.add_argument(
        "--judge-cpu-seconds", type=int, default=limits.cpu_seconds,
        help="processor time a program (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--judge-wall-seconds", type=float, help="time a program (default: three times that)"
    )
    group.add_argument(
        "--judge-memory-mib", type=int, default=limits.memory_mib,
        help="address space a program (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--judge-workers", type=int, help="programs at once (default: one a processor)"
    )
    group.add_argument(
        UNSAFE_FLAG, action="store_true",
        help="run generated code also where it cannot be kept from harm",
    )  # fmt: skip


def _add_speed(group: argparse._ArgumentGroup) -> None:
    defaults = SpeedSettings()
    group.add_argument("--no-speed", dest="speed", action="store_false", help="leave it out")
    group.add_argument(
        "--speed-prompt", type=int, default=defaults.prompt, help="tokens (default: %(default)s)"
    )
    group.add_argument(
        "--speed-tokens", type=int, default=defaults.tokens,
        help="generated by each request (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--speed-rounds", type=int, default=defaults.rounds,
        help="of which the median counts (default: %(default)s)",
    )  # fmt: skip
