"""The jailed side of an exam: runs a generated program and answers calls of its function.

Nothing here is secret and nothing is decided here: whatever the program does to this process, it
can only make other answers of it.
"""

import os
from collections.abc import Callable
from typing import Any

from client.judging.jail.channel import Channel
from client.judging.jail.plain import decode, encode

_LONGEST = 300


def answer(program: str, entry_point: str, channel: Channel) -> None:
    """Loads the program, says so, and answers one call after another until there are no more."""
    space: dict[str, Any] = {"__name__": "candidate"}

    def load() -> None:
        exec(compile(program, "<candidate>", "exec"), space)
        if entry_point not in space:
            raise NameError(f"the program defines no {entry_point}")

    if not _answered(channel, load):
        return
    while True:
        try:
            arguments, named = channel.receive()
        except EOFError:
            return
        positional = [decode(each) for each in arguments]
        by_name = {name: decode(each) for name, each in named.items()}
        _answered(channel, lambda: space[entry_point](*positional, **by_name))  # noqa: B023


def _answered(channel: Channel, act: Callable[[], Any]) -> bool:
    """Sends what came of it; whether it came to its end."""
    try:
        channel.send({"value": encode(act())})
    except BrokenPipeError:
        os._exit(0)  # the exam is over
    except BaseException as error:  # noqa: BLE001 - generated code may raise anything
        channel.send({"error": type(error).__name__, "detail": _text(error)})
        return False
    return True


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST]
    except BaseException:  # noqa: BLE001 - its own __str__ is generated code too
        return ""
