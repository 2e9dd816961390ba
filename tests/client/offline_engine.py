"""An engine for tests of the in-process benchmark: does what the word for its weights says.

Standard library only, as the worker that measures it. `none` makes its tokens at known times.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.engines.ask import Ask
from client.engines.engine import ColdStart, DoesNotFit, Facts, Made, Unavailable

STEP = 0.001  # seconds a token
SIZES = {"layers": 2, "heads": 4, "head_dim": 8, "hidden": 32, "vocab": 256, "tied": 1}
PARAMETERS = 50_000


def open_engine(ask: Ask) -> "Scripted":
    """Opens, or does what keeps an engine from it."""
    if ask.kind in _WORDS:
        _WORDS[ask.kind](ask)
    if ask.kind == "upto8" and ask.batch > 8:
        raise DoesNotFit(f"batch {ask.batch} | does not fit; the largest that does is 8")
    return Scripted(ask)


class Scripted:
    """Makes tokens by counting."""

    def __init__(self, ask: Ask) -> None:
        self.cold = ColdStart(0.25, 0.5, 0.125)
        self._kind = ask.kind

    def facts(self) -> Facts:
        """Known sizes."""
        return Facts(
            device="cpu",
            devices=1,
            attention="scripted",
            versions={"scripted": "1"},
            parameters=PARAMETERS,
            sizes=SIZES,
            weight_bytes=4 * PARAMETERS,
            step_weight_bytes=4 * PARAMETERS,
            cache_bytes_per_position=512,
        )

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """A token each STEP; `short` lacks one."""
        stamps = []
        for _ in range(new - (self._kind == "short")):
            time.sleep(STEP)
            stamps.append(time.perf_counter())
        return Made(stamps, [max(row) for row in prompts][:1] * new)

    def window(self, rows: Sequence[Sequence[int]]) -> Any:
        """As it is."""
        return [list(row) for row in rows]

    def advance(self, window: Any) -> Any:
        """The next id is the last."""
        time.sleep(STEP)
        return [[*row[1:], row[-1]] for row in window]

    def loss(self, window: Any) -> float:
        """A tenth of the rows."""
        time.sleep(STEP)
        return len(window) / 10

    def reset_peak(self) -> bool:
        """There is no device."""
        return False

    def peak_bytes(self) -> int | None:
        """There is no device."""
        return None


def _killed(ask: Ask) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _memory(ask: Ask) -> None:
    # More than --memory-limit-gib allows, asked for as an engine asks.
    held = bytearray(2**30)
    raise AssertionError(f"{len(held)} bytes were given")


def _chip(ask: Ask) -> None:
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore lines")


def _aborts(ask: Ask) -> None:
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
    os.abort()


def _crash(ask: Ask) -> None:
    raise ValueError("the weights are upside down")


def _hangs(ask: Ask) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("compiling 1/9", file=sys.stderr, flush=True)
    time.sleep(120)


def _absent(ask: Ask) -> None:
    raise Unavailable("no such library: scripted_library")


def _gate(ask: Ask) -> None:
    while not Path(ask.options[0]).exists():
        time.sleep(0.01)


_WORDS = {
    "killed": _killed,
    "memory": _memory,
    "chip": _chip,
    "aborts": _aborts,
    "crash": _crash,
    "hangs": _hangs,
    "absent": _absent,
    "gate": _gate,
}
