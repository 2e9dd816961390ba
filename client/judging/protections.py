"""What a candidate must be kept from, and by which means each is kept."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from client.judging.jail.confine import (
    LANDLOCK,
    NAMESPACES,
    NOBODY,
    PROCESS_LIMIT,
    SECCOMP,
)

# Each by any one of these means; all that a system has are in force at once.
PROTECTIONS = {
    "changing files": (SECCOMP, NAMESPACES, LANDLOCK),
    "reading the caller's files and environment": (NAMESPACES, LANDLOCK, NOBODY),
    "the network": (SECCOMP, NAMESPACES),
    "starting processes": (SECCOMP, PROCESS_LIMIT),
    "signals to other processes": (SECCOMP, NAMESPACES, NOBODY),
}
# Time, memory, open files and output are limited everywhere.


@dataclass(frozen=True)
class Containment:
    """What holds candidates on this system.

    `held`: the means in force. `given_up`: (means, why) of the others. `breaches`: what a program
    that tried got done all the same.
    """

    held: tuple[str, ...] = ()
    given_up: tuple[tuple[str, str], ...] = ()
    breaches: tuple[str, ...] = ()

    @property
    def lacking(self) -> list[str]:
        """Protections that nothing gives."""
        return [name for name, means in PROTECTIONS.items() if not _any(means, self.held)]

    @property
    def whole(self) -> bool:
        """Whether a candidate is kept from everything."""
        return not self.lacking and not self.breaches

    @property
    def summary(self) -> str:
        """The means in one line."""
        return ", ".join((*self.held, "limits of time, memory and output"))

    def describe(self) -> list[str]:
        """A line for each protection, and for what is missing."""
        lines = [
            f"{name}: {' and '.join(_any(means, self.held)) or 'NOTHING'}"
            for name, means in PROTECTIONS.items()
        ]
        lines += [f"not used: {means}: {reason}" for means, reason in self.given_up]
        return [*lines, *(f"BREACHED by a trial: {breach}" for breach in self.breaches)]


def _any(means: Sequence[str], held: Collection[str]) -> list[str]:
    return [each for each in means if each in held]
