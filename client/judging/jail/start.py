"""Where a jailed process begins: reads its orders, confines itself, plays its part.

The orders come as one JSON object on the standard input. On the status pipe go first lines on what
confines the process, then, from an examiner alone, the result.
"""

import json
import os
import sys
from typing import Any

from client.judging.jail.candidate import answer
from client.judging.jail.channel import Channel
from client.judging.jail.confine import Order, confine
from client.judging.jail.examiner import PASSED, examine


def main() -> None:
    """`argv[1]` is the folder that this package was imported from."""
    orders = json.loads(sys.stdin.buffer.read())
    channel = Channel(orders["incoming"], orders["outgoing"])
    status = orders["status"]
    os.environ.clear()
    try:
        given_up: list[tuple[str, str]] = []
        held = confine(_jail(orders["jail"]), lambda *reason: given_up.append(reason))
    except OSError as error:
        _tell(status, {"failed": str(error)})
        return
    _tell(status, {"held": held, "given_up": given_up})
    if orders["part"] == "examiner":
        result = examine(orders["preamble"], orders["tests"], orders["entry_point"], channel)
        proof = orders["token"] if result.outcome == PASSED else ""
        _tell(status, {"outcome": result.outcome, "detail": result.detail, "proof": proof})
        return
    os.close(status)
    _forget(sys.argv[1])
    answer(orders["program"], orders["entry_point"], channel)
    # At once: what the program registered for the end is not wanted.
    os._exit(0)


def _jail(values: dict[str, Any]) -> Order:
    lists = {name: tuple(values[name]) for name in ("means", "view")}
    return Order(**(values | lists))


def _tell(status: int, message: dict[str, Any]) -> None:
    os.write(status, json.dumps(message).encode() + b"\n")


def _forget(root: str) -> None:
    """What is left is Python's own library: a program finds no module of ours."""
    sys.path[:] = [path for path in sys.path if path not in (root, "")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "client"]:
        del sys.modules[name]
    del sys.argv[1:]
