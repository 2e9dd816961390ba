"""Waiting for a server to take requests."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.sweeping.processes import ProcessGroup


@dataclass(frozen=True)
class Ready:
    """Where the server listens, and what it says of itself: `plan`, None when it does not."""

    port: int
    plan: dict[str, Any] | None = None


def wait_until_ready(
    server: ProcessGroup,
    port: int,
    ready_file: Path | None,
    seconds: float,
    tick: Callable[[], None],
) -> Ready | None:
    """Waits for the server's ready file, or without one for its port to take connections.

    None when it ended or `seconds` are over. Raises `Interrupted`.
    """
    found: list[Ready] = []

    def look() -> bool:
        ready = _read(ready_file, port) if ready_file else _connect(port)
        if ready is not None:
            found.append(ready)
        return ready is not None

    server.wait(look, seconds, tick)
    return found[0] if found else None


def free_port() -> int:
    """A port of this host that was free just now."""
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


def _read(path: Path, port: int) -> Ready | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or not all of it yet
    values = said if isinstance(said, dict) else {}
    listens, plan = values.get("port"), values.get("plan")
    return Ready(
        listens if isinstance(listens, int) else port, plan if isinstance(plan, dict) else None
    )


def _connect(port: int) -> Ready | None:
    with suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return Ready(port)
    return None
