"""What the judge's tests share: a task, canaries, and a look at what is left running."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import client.judging.judge
from client.judging.exam import Task

SOURCE = Path(client.judging.judge.__file__)
DOUBLE = Task("double", "", "def check(c):\n    assert c(2) == 4\n    assert c(-3) == -6\n", "f")
_JAILED = b"client.judging.jail.start"


@dataclass
class Canaries:
    """What a hostile program would like to get at; `harmed` says what it did."""

    folder: Path
    port: int
    signals: list[int] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    source: bytes = field(default_factory=SOURCE.read_bytes)

    @property
    def canary(self) -> Path:
        """A file only its owner may read."""
        return self.folder / "canary"

    def fill_in(self, program: str) -> str:
        """A program with the places of the canaries."""
        return program.format(canary=self.canary, source=SOURCE, port=self.port, caller=os.getpid())

    def harmed(self) -> list[str]:
        """Everything that is not as it was."""
        found = [f"signal {number}" for number in self.signals] + self.connections
        if not self.canary.exists() or self.canary.read_text() != "canary":
            found.append("the file is not as it was")
        elif self.canary.stat().st_mode & 0o777 != 0o600 or len(list(self.folder.iterdir())) != 1:
            found.append("the folder is not as it was")
        if SOURCE.read_bytes() != self.source:
            found.append("our sources are not as they were")
        links = [Path(place) / "hostile-link" for place in ("/tmp", "/dev/shm")]
        found += [f"{link} is there" for link in links if link.is_symlink()]
        return found + [f"process {pid} is left" for pid in jailed_processes()]


@contextmanager
def canaries(folder: Path) -> Iterator[Canaries]:
    """Set out until the end of the block. In the main thread, where signals are heard."""
    (folder / "canary").write_text("canary")
    (folder / "canary").chmod(0o600)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(server.getsockname())
        found = Canaries(folder, server.getsockname()[1])
        server.settimeout(0.2)
        datagrams.settimeout(0.2)
        stop = threading.Event()
        for wait in (server.accept, lambda: datagrams.recvfrom(1)):
            threading.Thread(target=_listen, args=(wait, found, stop), daemon=True).start()

        def hear(number: int, _: FrameType | None) -> None:
            found.signals.append(number)

        before = signal.signal(signal.SIGUSR1, hear)
        try:
            yield found
        finally:
            stop.set()
            signal.signal(signal.SIGUSR1, before)


def jailed_processes() -> list[int]:
    """Processes of any judge on this machine that this process started, dead ones left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            ours = _JAILED in (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if ours and str(SOURCE.parents[2]).encode() in (folder / "cmdline").read_bytes():
            found.append(int(folder.name))
    return found


def _listen(wait: Callable[[], object], found: Canaries, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            found.connections.append(f"something came from {wait()}")
        except TimeoutError:
            continue
        except OSError:
            return
