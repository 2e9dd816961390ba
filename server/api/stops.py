"""Stop strings in a text that comes in pieces."""

from collections.abc import Sequence


class StopFilter:
    """Passes text on until a stop string is complete, and holds back what may become one.

    The string that is complete first counts (the longest, if several end there), so the result
    does not depend on how the text was cut into pieces. `met` tells that one was found.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._firsts = frozenset(stop[0] for stop in stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.met = False

    def push(self, text: str) -> str:
        """The text that may be sent now; nothing once a stop string was met."""
        if self.met or not text:
            return ""
        text = self._held + text
        found = self._first(text)
        if found is not None:
            self.met, self._held = True, ""
            return text[:found]
        kept = self._start_of_hold(text)
        self._held = text[kept:]
        return text[:kept]

    def flush(self) -> str:
        """At the end of the text: what was held back, as it became no stop string."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> int | None:
        hits = ((text.find(stop), len(stop)) for stop in self._stops)
        ends = [(start + length, start) for start, length in hits if start >= 0]
        return min(ends)[1] if ends else None

    def _start_of_hold(self, text: str) -> int:
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] not in self._firsts:
                continue
            tail = text[start:]
            if any(stop.startswith(tail) for stop in self._stops):
                return start
        return len(text)
