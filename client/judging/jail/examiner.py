"""The trusted side of an exam: runs the tests, which call the candidate in another process.

No generated code runs here. A pass is proved by a token that only this process and the judge know.
"""

import builtins
from typing import Any, NamedTuple

from client.judging.jail.channel import Channel
from client.judging.jail.plain import decode, encode

PASSED, WRONG, RAISED, DIED, BROKEN = "passed", "wrong", "raised", "died", "broken"
_LONGEST = 300


class Result(NamedTuple):
    """One of the words above, and more about it. BROKEN: the tests themselves do not load."""

    outcome: str
    detail: str = ""


class _Gone(BaseException):
    """The candidate's process ended. Not an Exception: tests that catch those must not go on."""


class _Candidate:
    """The function under test, elsewhere."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.error: Result | None = None

    def load(self) -> None:
        """Waits until the program is loaded. Raises what loading it raised."""
        self._take()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        request = (
            [encode(each) for each in arguments],
            {name: encode(each) for name, each in named.items()},
        )
        try:
            self._channel.send(request)
        except BrokenPipeError:
            raise _Gone from None
        return self._take()

    def _take(self) -> Any:
        try:
            reply = self._channel.receive()
            if "error" not in reply:
                return decode(reply["value"])
            name, detail = str(reply["error"]), str(reply["detail"])[:_LONGEST]
        except EOFError:
            raise _Gone from None
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            name, detail = "ValueError", f"not an answer: {error}"[:_LONGEST]
        self.error = Result(RAISED, f"{name}: {detail}" if detail else name)
        # As it would be in one process, for tests that expect an exception.
        kind = getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        raise kind(detail)


def examine(preamble: str, tests: str, entry_point: str, channel: Channel) -> Result:
    """Runs `check(candidate)` of the tests, after the preamble they may refer to."""
    candidate = _Candidate(channel)
    space: dict[str, Any] = {"__name__": "exam"}
    try:
        exec(compile(f"{preamble}\n{tests}", "<tests>", "exec"), space)
        space[entry_point] = candidate
        check = space["check"]
    except Exception as error:  # noqa: BLE001 - a file of problems may hold anything
        return Result(BROKEN, f"{type(error).__name__}: {error}"[:_LONGEST])
    try:
        candidate.load()
        check(candidate)
    except _Gone:
        return Result(DIED)
    except AssertionError as error:
        return candidate.error or Result(WRONG, str(error)[:_LONGEST])
    except BaseException as error:  # noqa: BLE001 - an answer may make a test raise anything
        found = Result(RAISED, f"in the tests: {type(error).__name__}: {error}"[:_LONGEST])
        return candidate.error or found
    return Result(PASSED)
