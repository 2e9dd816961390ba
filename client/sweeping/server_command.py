"""How the server of a cell is started."""

import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter

from client.errors import UsageError
from client.sweeping.setting import Setting

FIELDS = ("batch_size", "cache_length", "quantize", "sharding", "port", "ready_file")


@dataclass(frozen=True)
class ServerCommand:
    """Words in which FIELDS in braces stand for the values of a cell.

    A server that is given {ready_file} writes JSON with "port" there once it takes requests. One
    that is not is given {port}, a free port of this host, and is ready when it takes connections.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        used = self.fields
        unknown = sorted(used - set(FIELDS))
        if unknown:
            raise UsageError(
                f"--server-command: {{{unknown[0]}}} is not known; known are "
                f"{', '.join(f'{{{name}}}' for name in FIELDS)} (write {{{{ and }}}} for braces)"
            )
        if not used & {"port", "ready_file"}:
            raise UsageError("--server-command: needs {port} or {ready_file}, to find the server")
        if shutil.which(self.words[0]) is None:
            raise UsageError(f"--server-command: there is no program {self.words[0]!r}")

    @property
    def fields(self) -> set[str]:
        """Names in braces."""
        try:
            parts = [part for word in self.words for part in Formatter().parse(word)]
        except ValueError as error:
            raise UsageError(f"--server-command: {error}") from error
        return {name for _, name, _, _ in parts if name is not None}

    @property
    def writes_ready_file(self) -> bool:
        """Whether the server says by a file that it is ready."""
        return "ready_file" in self.fields

    def fill(self, setting: Setting, port: int, ready_file: Path) -> tuple[str, ...]:
        """The command line for one cell."""
        values = asdict(setting) | {"port": port, "ready_file": ready_file}
        return tuple(word.format(**values) for word in self.words)


def own_server(model: str, virtual_cpu_devices: int | None) -> ServerCommand:
    """`python -m server` on a port of its own choice."""
    words = [_literal(sys.executable), "-m", "server", "--model", _literal(model)]
    if virtual_cpu_devices is not None:
        words += ["--virtual-cpu-devices", str(virtual_cpu_devices)]
    words += ["--port", "0", "--ready-file", "{ready_file}"]
    for name in ("batch_size", "cache_length", "quantize", "sharding"):
        words += [f"--{name.replace('_', '-')}", f"{{{name}}}"]
    return ServerCommand(tuple(words))


def parse_server_command(text: str) -> ServerCommand:
    """A command line as a shell would split it; no shell runs it. `UsageError` when it is wrong."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--server-command: {error}; got {text!r}") from error
    if not words:
        raise UsageError("--server-command: is empty")
    return ServerCommand(tuple(words))


def with_options(command: ServerCommand, options: tuple[str, ...]) -> ServerCommand:
    """The command with further words at its end, in which braces mean nothing."""
    return ServerCommand((*command.words, *(_literal(word) for word in options)))


def _literal(word: str) -> str:
    return word.replace("{", "{{").replace("}", "}}")
