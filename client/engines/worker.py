"""Measures one point: `python -m client.engines.worker ASK RESULT`, both files of JSON.

The result is written whole or not at all. What ended the process is told by its exit status where
there is no result. Standard library only; an engine brings its own libraries.
"""

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from client.engines import memory
from client.engines.ask import Ask, ask_from_json
from client.engines.energy import find_meter
from client.engines.engine import DoesNotFit, Engine, Unavailable
from client.engines.tasks import run_task

OK, REFUSED, OOM, UNAVAILABLE = "ok", "refused", "oom", "unavailable"
# Each has a function `open_engine(ask)`.
ENGINES = {
    "loadstone": "client.engines.loadstone",
    "transformers": "client.engines.transformers_peer",
    "torch_xla": "client.engines.torch_xla_peer",
}
# Words with which the engines' libraries say that memory is short.
_SHORT = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory", "can't allocate memory")


def main(argv: list[str] | None = None) -> int:
    """Runs the point and returns the exit status."""
    asked, result = (Path(word) for word in (sys.argv[1:] if argv is None else argv))
    ask = ask_from_json(asked.read_text(encoding="utf-8"))
    memory.go_first()
    if ask.memory_limit is not None:
        memory.limit(ask.memory_limit)
    found = measure(ask)
    part = result.with_name(f".{result.name}.part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(result)
    return 0


def measure(ask: Ask) -> dict[str, Any]:
    """What came of it, as JSON values: its `status`, and either a `reason` or the figures."""
    try:
        return _measure(ask)
    except Unavailable as error:
        return {"status": UNAVAILABLE, "reason": _line(error)}
    except DoesNotFit as error:
        return {"status": REFUSED, "reason": _line(error)}
    except MemoryError as error:
        return {"status": OOM, "reason": _line(error) or "MemoryError"}
    except RuntimeError as error:
        # JAX and PyTorch each raise their own kind of RuntimeError for want of memory.
        if any(word in str(error) for word in _SHORT):
            return {"status": OOM, "reason": _line(error)}
        raise


def _measure(ask: Ask) -> dict[str, Any]:
    engine: Engine = import_module(ENGINES[ask.engine]).open_engine(ask)
    ready = _seconds_since_start()
    facts = engine.facts()
    peaks = _Peaks(engine)
    meter = find_meter(facts.device, facts.devices)
    timed = run_task(engine, ask, facts.sizes["vocab"], meter, peaks.reset)
    return {
        "status": OK,
        "reason": "",
        "facts": asdict(facts),
        "cold": {"ready": ready, "first_run": timed.first, **asdict(engine.cold)},
        "memory": peaks.as_json(),
        "timed": asdict(timed),
    }


class _Peaks:
    """The most memory held by the device, or by the process where that is the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._device_reset = self._host_reset = False
        self._before = 0

    def reset(self) -> None:
        """From here on it is counted anew, where that can be done."""
        self._before = memory.peak_resident()
        self._host_reset = memory.reset_peak()
        self._device_reset = self._engine.reset_peak()

    def as_json(self) -> dict[str, Any]:
        """`while_timed`: since `reset`, and not since the process began."""
        device, host = self._engine.peak_bytes(), memory.peak_resident()
        return {
            "peak_bytes": host if device is None else device,
            "of": "process, resident" if device is None else "device, allocated",
            "while_timed": self._host_reset if device is None else self._device_reset,
            "host_peak_bytes": max(host, self._before),
        }


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else ""


def _seconds_since_start() -> float | None:
    """How long this process has been there; None where the system does not say."""
    try:
        # The name, in brackets, may hold spaces; the start is field 22, in ticks since boot.
        after = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return None
    return up - int(after[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
