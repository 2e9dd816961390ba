"""Says of generated programs whether they pass, and refuses to run them where it is not safe."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from client.errors import UsageError
from client.judging.exam import Jail, Task, sit
from client.judging.jail.confine import MEANS, NAMESPACES, NOBODY
from client.judging.limits import Limits
from client.judging.probe import try_out
from client.judging.process import JailError
from client.judging.protections import Containment
from client.judging.verdict import Verdict

UNSAFE_FLAG = "--accept-unsafe-judge"


class Judge:
    """Open as a context. `containment` tells what holds candidates here.

    `means`: those to use, of MEANS. Opening it runs a program that tries to get out, and raises
    `UsageError` where a protection is missing, unless `unsafe` is accepted.
    """

    def __init__(
        self, limits: Limits | None = None, means: Sequence[str] = MEANS, unsafe: bool = False
    ) -> None:
        self._limits = limits or Limits()
        self._means = tuple(means)
        self._unsafe = unsafe
        self.containment = Containment()

    def __enter__(self) -> Self:
        # Nothing is ever written there; others may look, so that any user can stand in it.
        self._folder = tempfile.TemporaryDirectory(prefix="loadstone-judge-")
        Path(self._folder.name).chmod(0o755)
        try:
            self._jail, self.containment = self._best_jail()
            self._check()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def judge(self, program: str, task: Task) -> Verdict:
        """Whether the program's function passes the tests. From any thread.

        Raises `JailError` where there can be no verdict.
        """
        sitting = sit(program, task, self._jail)
        if sitting.held != self.containment.held:
            raise JailError(
                f"{task.id} was held by {', '.join(sitting.held)}, and not by "
                f"{', '.join(self.containment.held)} as the trial"
            )
        return sitting.verdict

    def _best_jail(self) -> tuple[Jail, Containment]:
        """The first that holds, and else the one that holds best."""
        failures: list[tuple[str, str]] = []
        found: list[tuple[Jail, Containment]] = []
        for jail in self._jails():
            try:
                containment = try_out(jail)
            except JailError as error:
                failures.append((" and ".join(jail.means), str(error)))
                continue
            told = (*failures, *containment.given_up)
            found.append((jail, replace(containment, given_up=told)))
            if containment.whole:
                return found[-1]
        if not found:
            why = "; ".join(f"{means}: {reason}" for means, reason in failures)
            raise UsageError(f"generated code cannot be jailed on this system: {why}")
        return min(found, key=lambda each: len(each[1].lacking) + len(each[1].breaches))

    def _jails(self) -> Iterator[Jail]:
        # Namespaces that fail leave no process to go on with; and without a view of its own,
        # another user may not be able to read Python's library.
        for left_out in ((), (NAMESPACES,), (NAMESPACES, NOBODY)):
            if set(left_out) <= set(self._means):
                means = tuple(each for each in self._means if each not in left_out)
                yield Jail(means, self._limits, self._folder.name)

    def _check(self) -> None:
        if self.containment.whole or self._unsafe:
            return
        kept = "; ".join(self.containment.describe())
        raise UsageError(
            f"generated code cannot be kept from everything here ({kept}); run it where namespaces "
            f"or Landlock and seccomp may be used, or accept it with {UNSAFE_FLAG}"
        )
