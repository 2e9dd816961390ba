"""What happened to each request of a simulation."""

import math


class Log:
    """Seconds at which each request was admitted to a slot, gave its first token and ended; NaN
    until then. Lists: setting an item of one costs less than of an array. refused: for want of room
    in the queue.
    """

    def __init__(self, requests: int) -> None:
        self.admitted = [math.nan] * requests
        self.first = [math.nan] * requests
        self.ended = [math.nan] * requests
        self.refused: list[int] = []
