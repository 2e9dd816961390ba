"""Puts this process into its jail: every means that the system has, in the order that they need."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from client.judging.jail import filter as filters
from client.judging.jail import landlock, namespaces, resources, user

# In the order in which they are put on.
NAMESPACES, NOBODY, PROCESS_LIMIT = "namespaces", "another user", "process limit"
LANDLOCK, SECCOMP = "Landlock", "seccomp"
MEANS = (NAMESPACES, NOBODY, PROCESS_LIMIT, LANDLOCK, SECCOMP)


@dataclass(frozen=True)
class Order:
    """What a jail is asked to be.

    `means`: those to try, of MEANS. `view`: folders that may be read. `root`: an empty folder. The
    limits are seconds of processor time and bytes of address space.
    """

    means: tuple[str, ...]
    view: tuple[str, ...]
    root: str
    cpu_seconds: int
    memory_bytes: int


def confine(order: Order, give_up: Callable[[str, str], Any]) -> list[str]:
    """Returns the means that are in force. `give_up(means, reason)` is told of the others.

    With namespaces it returns in a child of the process. OSError where a step failed half-way, and
    for limits that cannot be set.
    """
    held: list[str] = []

    def attempt(means: str, step: Callable[[], Any]) -> None:
        if means not in order.means:
            return
        try:
            step()
        except OSError as error:
            give_up(means, str(error))
        else:
            held.append(means)

    if NAMESPACES in order.means:
        # Half-way in there is no way back: a failure here ends the process.
        namespaces.enter(order.view, order.root)
        namespaces.become_first()
        held.append(NAMESPACES)
    resources.limit(order.cpu_seconds, order.memory_bytes)
    if os.geteuid() == 0:
        attempt(NOBODY, user.become_nobody)
    if os.geteuid() != 0 and PROCESS_LIMIT in order.means:
        held.append(PROCESS_LIMIT)
    attempt(LANDLOCK, lambda: landlock.enter(order.view))
    if os.uname().sysname == "Linux":
        user.drop_capabilities()
        user.die_with_parent()
    attempt(SECCOMP, filters.enter)
    return held
