"""Answers of the Orchestrator service in columns, counted by token ids without an object each."""

import ctypes

import numpy as np

from client.reading.pieces import Pieces
from client.targets.exchange import Answer
from client.targets.grpc_wire import messages
from client.targets.orchestrator import Reading

_ODD = 16  # so many messages may hold more than text and ids: the first, the last, a few between


def read_columns(pieces: Pieces, library: ctypes.CDLL) -> Answer | None:
    """The answer, `by_ids`, of a stream of one message a piece, nearly all of them one sample of
    text and ids. None for any other stream, and for one that cannot be read.
    """
    counts = np.empty(len(pieces), np.int64)
    ends = pieces.ends.ctypes.data
    odd = library.samples_count(pieces.body, ends, len(pieces), counts.ctypes.data)
    if odd > _ODD:
        return None
    reading = Reading()
    for at in np.flatnonzero(counts < 0).tolist():
        found, problem = messages((pieces.at(at),))
        if problem or len(found) != 1 or not reading.take_raw(*found[0]):
            return None
        counts[at] = len(reading.pieces[-1].token_ids)
    brought = np.flatnonzero(counts)
    if not len(brought):
        return None
    if len(brought) == len(counts):
        return reading.answer(by_ids=(pieces.times, counts))
    return reading.answer(by_ids=(pieces.times[brought], counts[brought]))
