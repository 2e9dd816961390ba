"""The command line of a benchmark run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.errors import UsageError
from client.load.options import add_load_options, load_settings
from client.load.saturation import SearchSettings
from client.load.saturation_options import add_search_options, search_settings
from client.load.settings import LoadSettings
from client.parser import Parser
from client.results.options import ResultSettings, add_result_options, result_settings
from client.targets.options import add_request_options, add_target_options, target_settings
from client.targets.settings import TargetSettings
from client.workloads.options import add_workload_options, workload_settings
from client.workloads.session import Session
from client.workloads.settings import WorkloadSettings

_PROMPTS, _ALL = 1000, 10**9


@dataclass(frozen=True)
class Options:
    """Everything a run was asked to do. `prompts`: sessions to prepare.

    `own_connections`: how many are opened was asked for, not left to the load.
    """

    target: TargetSettings
    workload: WorkloadSettings
    load: LoadSettings
    results: ResultSettings
    search: SearchSettings | None = None
    model: str | None = None
    tokenizer: Path | None = None
    prompts: int = _PROMPTS
    own_connections: bool = False

    def for_sessions(self, sessions: tuple[Session, ...]) -> "Options":
        """These options with as many connections as each worker needs for these sessions."""
        if self.own_connections:
            count = -(-self.target.connections // self.load.workers)
        else:
            count = self.load.connections(self.target.kind, self.target.transport, sessions)
        # A trace says itself how many it has.
        prompts = min(self.prompts, len(sessions)) if self.prompts == _ALL else self.prompts
        return replace(
            self,
            target=replace(self.target, connections=count, streams=self.load.streams(sessions)),
            prompts=prompts,
        )

    def at_rate(self, rate: float, prompts: int, probe: int) -> "Options":
        """These options with another rate, and so many sessions: others for each probe.

        The same prompts again would be answered from a server's prefix cache.
        """
        arrivals = replace(self.load.arrivals, rate=rate)
        load = replace(self.load, arrivals=arrivals, seed=self.load.seed + probe)
        return replace(self, load=load, prompts=prompts)


def parse_options(argv: Sequence[str] | None) -> Options:
    """Reads the command line. Exits with status 2 and one line when it is wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        return _options(given)
    except UsageError as error:
        parser.error(str(error))


def _options(given: argparse.Namespace) -> Options:
    workload, load = workload_settings(given), load_settings(given)
    prompts = load.sessions_wanted(_ALL if workload.kind == "trace" else _PROMPTS)
    target, results = target_settings(given), result_settings(given)
    if target.kind.startswith("openai") and target.model is None and given.model is not None:
        # As elsewhere: the model's name is what a server is asked for, unless it has another there.
        target = replace(target, model=given.model)
    if load.real_history and target.kind != "openai-chat":
        raise UsageError(f"--real-history is for --backend openai-chat, not {target.kind}")
    if target.kind == "in-process" and load.workers > 1:
        raise UsageError("--workers: one, with --backend in-process: it has one engine")
    if results.vllm_append and results.vllm_name is None:
        raise UsageError("--append-result adds to a file: name it with --result-filename")
    return Options(
        target=target,
        workload=workload,
        load=load,
        results=results,
        search=search_settings(given),
        model=given.model,
        tokenizer=given.tokenizer,
        prompts=prompts,
        own_connections=given.connections is not None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.benchmark",
        description="Asks a server what a workload asks, when it asks it, and prints throughput, "
        "latency and how far the client itself can be trusted.",
        epilog="Status: 0 all completed, 1 some failed, 2 bad input or no ready server, 3 INVALID: "
        "the client was the limit, 130 interrupted. With --saturation: 0 found, 1 no rate kept the "
        "level, 3 only the client's limit was found.",
        allow_abbrev=False,
    )
    add_target_options(parser.add_argument_group("server"))
    add_request_options(parser.add_argument_group("what is generated"))
    workload = parser.add_argument_group("what is asked")
    workload.add_argument(
        "--model",
        help="its name, in the record and to an OpenAI server (default: what the server says, and "
        "the tokenizer's in the record)",
    )  # fmt: skip
    workload.add_argument("--tokenizer", type=Path, help="default: the embedded SmolLM2's")
    add_workload_options(workload)
    load = parser.add_argument_group("when")
    add_load_options(load)
    add_search_options(load)
    add_result_options(parser.add_argument_group("results"))
    return parser
