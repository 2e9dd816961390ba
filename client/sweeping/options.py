"""The command line of a sweep."""

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.options import parse_options
from client.parser import Parser
from client.sweeping.server_command import (
    FIELDS,
    ServerCommand,
    own_server,
    parse_server_command,
    with_options,
)
from client.sweeping.setting import Setting, grid

DEFAULT_MODEL = "smollm2-135m"
QUANTIZE, SHARDINGS = ("none", "int8"), ("model", "batch")
PORT = "{port}"
# What a sweep gives to the client itself, cell by cell.
_RESERVED = ("--num-prompts", "--result-dir", "--port")


@dataclass(frozen=True)
class SweepOptions:
    """Everything a sweep was asked to do. Times in seconds.

    `server_command` None: our own server. `model` None: another server, which knows its own.
    """

    batch_sizes: tuple[int, ...] = (8, 16, 32)
    cache_lengths: tuple[int, ...] = (1024,)
    quantize: tuple[str, ...] = ("none",)
    shardings: tuple[str, ...] = ("model",)
    model: str | None = DEFAULT_MODEL
    virtual_cpu_devices: int | None = None
    num_prompts: int = 50
    out: Path | None = None
    server_command: str | None = None
    server_options: tuple[str, ...] = ()
    client_options: tuple[str, ...] = ()
    retry_failed: bool = False
    bandwidth_gbps: float | None = None
    peak_tflops: float | None = None
    ready_seconds: float = 900.0
    benchmark_seconds: float = 3600.0
    stop_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "cache_lengths", "quantize", "shardings"):
            self._check_list(name, getattr(self, name))
        for name in ("num_prompts", "virtual_cpu_devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_flag(name)}: 1 or more; got {value}")
        limits = ("ready_seconds", "benchmark_seconds", "stop_seconds")
        for name in (*limits, "bandwidth_gbps", "peak_tflops"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{_flag(name)}: a number above 0; got {value}")
        self._check_server()
        self._check_client()

    @property
    def cells(self) -> tuple[Setting, ...]:
        """Every combination, in the order they are tried in."""
        return grid(self.batch_sizes, self.cache_lengths, self.quantize, self.shardings)

    @property
    def command(self) -> ServerCommand:
        """How a cell's server is started."""
        if self.server_command is not None:
            return with_options(parse_server_command(self.server_command), self.server_options)
        own = own_server(self.model or DEFAULT_MODEL, self.virtual_cpu_devices)
        return with_options(own, self.server_options)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes two sweeps the same one, as JSON values."""
        return {
            "batch_sizes": list(self.batch_sizes),
            "cache_lengths": list(self.cache_lengths),
            "quantize": list(self.quantize),
            "shardings": list(self.shardings),
            "model": self.model,
            "virtual_cpu_devices": self.virtual_cpu_devices,
            "num_prompts": self.num_prompts,
            "server_command": self.server_command,
            "server_options": list(self.server_options),
            "client_options": list(self.client_options),
            "bandwidth_gbps": self.bandwidth_gbps,
            "peak_tflops": self.peak_tflops,
        }

    @property
    def folder(self) -> Path:
        """Where it goes; without --out, a folder of its own for each set of settings."""
        if self.out is not None:
            return self.out
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        model = Path(self.model).name if self.model else "server"
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in model)
        return Path("runs") / f"sweep-{plain}-{digest[:8]}"

    def client_arguments(self, port: int, folder: Path) -> list[str]:
        """Options of `python -m client.benchmark` for a cell.

        The client is given `--port`, unless its options say with {port} where it stands.
        """
        arguments = ["--num-prompts", str(self.num_prompts), "--result-dir", str(folder)]
        arguments += ["--warmup-mode", "sampled"]
        if not any(PORT in option for option in self.client_options):
            arguments += ["--port", str(port)]
        if self.model is not None:
            arguments += ["--model", self.model]
        return [*arguments, *(word.replace(PORT, str(port)) for word in self.client_options)]

    def _check_list(self, name: str, values: tuple[Any, ...]) -> None:
        if not values:
            raise UsageError(f"{_flag(name)}: one or more values, separated by commas; got none")
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise UsageError(f"{_flag(name)}: {twice[0]} stands there twice")

    def _check_server(self) -> None:
        used = self.command.fields
        if self.server_command is None:
            _allow("--quantize", self.quantize, QUANTIZE)
            _allow("--shardings", self.shardings, SHARDINGS)
        elif self.virtual_cpu_devices is not None:
            raise UsageError(
                "--virtual-cpu-devices is for our own server; write what the other one takes "
                "into --server-command"
            )
        lists = (self.batch_sizes, self.cache_lengths, self.quantize, self.shardings)
        for field, values in zip(FIELDS, lists, strict=False):
            if len(values) > 1 and field not in used:
                raise UsageError(
                    f"--server-command has no {{{field}}}, so it cannot take {len(values)} values "
                    "of it; put it in, or give one value"
                )

    def _check_client(self) -> None:
        for option in self.client_options:
            if option.partition("=")[0] in _RESERVED:
                raise UsageError(
                    f"--client: {option.partition('=')[0]} is set by the sweep; leave it out"
                    + (" (the sweep has an option --num-prompts)" if "prompts" in option else "")
                )


def parse_sweep(argv: Sequence[str]) -> SweepOptions:
    """Reads the command line. Exits with status 2 and one line when it is wrong."""
    own, client, server = _split(argv)
    parser = _parser()
    given = vars(parser.parse_args(own))
    try:
        for name, read in _LISTS.items():
            given[name] = read(_flag(name), given[name])
        if given["model"] is None and given["server_command"] is None:
            given["model"] = DEFAULT_MODEL
        options = SweepOptions(**given, client_options=client, server_options=server)
    except UsageError as error:
        parser.error(str(error))
    # A mistake in the client's options shows now, not after the first server has started.
    parse_options(options.client_arguments(1, options.folder))
    return options


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    own: list[str] = []
    parts: dict[str, list[str]] = {"--client": [], "--": []}
    part = own
    for word in argv:
        if word in parts:
            part = parts[word]
        else:
            part.append(word)
    return own, tuple(parts["--client"]), tuple(parts["--"])


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(word) for word in text.split(","))
    except ValueError:
        values = (0,)
    if min(values) < 1:
        raise UsageError(f"{flag}: whole numbers from 1 on, separated by commas; got {text!r}")
    return values


def _words(flag: str, text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise UsageError(f"{flag}: words separated by commas; got {text!r}")
    return words


_LISTS = {
    "batch_sizes": _numbers,
    "cache_lengths": _numbers,
    "quantize": _words,
    "shardings": _words,
}


def _allow(flag: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise UsageError(f"{flag}: {', '.join(allowed)}; got {value!r}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m client.sweep",
        usage="%(prog)s [options] [--client CLIENT_OPTION ...] [-- SERVER_OPTION ...]",
        description="Starts a server for every combination of settings, benchmarks it, stops it, "
        "and prints one table. The same command again does what is missing.",
        epilog="What follows --client goes to python -m client.benchmark, what follows -- to the "
        "server. Status: 0 every setting was measured or refused by the server, 1 some ran out of "
        "memory, failed or are invalid, 2 bad input, 130 interrupted.",
        allow_abbrev=False,
    )
    _add_grid(parser.add_argument_group("settings, separated by commas"))
    _add_server(parser.add_argument_group("server"))
    _add_run(parser.add_argument_group("run"))
    _add_machine(parser.add_argument_group("machine, for the fraction of the roofline"))
    return parser


def _add_grid(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-sizes", default="8,16,32", help="default: %(default)s")
    group.add_argument(
        "--cache-lengths", default="1024", help="positions per slot (default: %(default)s)"
    )
    group.add_argument("--quantize", default="none", help="none,int8 (default: %(default)s)")
    group.add_argument("--shardings", default="model", help="model,batch (default: %(default)s)")


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", help=f"default: {DEFAULT_MODEL}")
    group.add_argument(
        "--virtual-cpu-devices", type=int, help="split the CPU into this many, to try sharding"
    )
    group.add_argument(
        "--server-command",
        metavar="COMMAND",
        help="another server, with {batch_size} {cache_length} {quantize} {sharding} {port} "
        "{ready_file} where they belong; it writes JSON with its port to {ready_file} when ready, "
        "or without that listens at {port}",
    )
    group.add_argument(
        "--ready-seconds", type=float, default=900.0,
        help="for the server to start (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--stop-seconds", type=float, default=60.0,
        help="for the server to end before it is killed (default: %(default)s)",
    )  # fmt: skip


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--num-prompts", type=int, default=50, help="requests a setting (default: %(default)s)"
    )
    group.add_argument(
        "--benchmark-seconds", type=float, default=3600.0,
        help="for the client to end (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--out", type=Path, help="folder (default: runs/sweep-MODEL-, and a word for the settings)"
    )
    group.add_argument(
        "--retry-failed", action="store_true",
        help="try again what failed, ran out of memory or was invalid",
    )  # fmt: skip


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bandwidth-gbps", type=float,
        help="GB/s of all devices' memory (default: measured, for a server on this host's CPU)",
    )  # fmt: skip
    group.add_argument(
        "--peak-tflops", type=float, help="TFLOP/s of all devices (default: measured, as above)"
    )
