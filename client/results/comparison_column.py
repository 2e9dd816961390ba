"""A quantity of the requests of one run, for resampling them."""

import numpy as np

# Left out at each end of a 95% interval.
TAIL = 0.025


class Column:
    """A quantity of the requests: its values in order of size, and whose each is."""

    def __init__(self, values: np.ndarray, owners: np.ndarray) -> None:
        order = np.argsort(values, kind="stable")
        self.values = values[order]
        self._owners = owners[order]

    def holds(self, statistic: float | None) -> bool:
        """Whether there are values enough for a percentile, or for the mean (None)."""
        if not self.values.size:
            return False
        return statistic is None or (statistic / 100) ** self.values.size <= TAIL

    def figure(self, statistic: float | None, times_drawn: np.ndarray) -> float:
        """The mean (None) or a percentile with each request counted as often as it was drawn."""
        weights = times_drawn[self._owners]
        if statistic is None:
            whole = weights.sum()
            return float(weights @ self.values / whole) if whole else np.nan
        upto = np.cumsum(weights)
        if not upto[-1]:
            return np.nan
        place = statistic / 100 * (upto[-1] - 1)
        below = int(place)
        ranks = (below, min(below + 1, upto[-1] - 1))
        low, high = self.values[np.searchsorted(upto, ranks, side="right")]
        return float(low + (high - low) * (place - below))
