"""Names that a user types."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from client.errors import UsageError

T = TypeVar("T")


def pick(what: str, name: str, known: Mapping[str, T]) -> T:
    """The value of a name. UsageError names the nearest ones, and all when they are few."""
    if name in known:
        return known[name]
    raise UsageError(f"{what} {name!r} is not known; {suggest(name, known)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """What the user may have meant."""
    names = list(known)
    lowered = {each.lower(): each for each in names}
    near = [lowered[each] for each in difflib.get_close_matches(name.lower(), lowered, 3, 0.5)]
    if near and len(names) > 12:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}"
