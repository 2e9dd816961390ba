"""What the API layer costs by itself: the real server over an engine that costs nothing.

`python -m benchmarks.api_layer [--streams 64 512] [--offered 10000] [--profile]`. The server runs
in a process of its own on the first core, the load on the second. Two kinds of runs: the engine
gives `--offered` tokens/s in all, one step for all streams at a time; or (offered 0) as many as it
can, and the server sends tokens that have piled up together. Late: from the moment the engine had a
token until the load had read it. Figures of paced runs are of the time in which all streams ran.
"""

import argparse
import asyncio
import bisect
import cProfile
import multiprocessing
import os
import pstats
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.api_layer_load import Stream, stream_grpc, stream_http
from benchmarks.machine import describe_machine
from benchmarks.paced_engine import PacedEngine
from server.api.config import ServerConfig
from server.api.event_loop import new_event_loop
from server.api.server import Server
from server.engine.protocol import EngineShape, PrefillSize
from tokenization import Tokenizer
from tokenization.pieces import Pieces

START_SECONDS = 60.0
CPU_EVERY_SECONDS = 0.02
PROFILE_ROWS = 25
VOCAB = 1 << 16

Load = Callable[[int, int, int], Coroutine[Any, Any, list[Stream]]]
LOADS: dict[str, Load] = {"grpc": stream_grpc, "http": stream_http}


@dataclass(frozen=True)
class Setting:
    """`offered` tokens a second in all, 0 for as many as can be."""

    wire: str
    streams: int
    offered: float
    profile: bool

    @property
    def step_seconds(self) -> float:
        """Between two tokens of a stream."""
        return self.streams / self.offered if self.offered else 0.0


@dataclass(frozen=True)
class Log:
    """What the server's process knows: seconds of time.monotonic(), and processor seconds then."""

    ready_times: Sequence[float]
    cpu: Sequence[tuple[float, float]]

    def cpu_between(self, start: float, end: float) -> float:
        """Processor seconds, of all threads."""
        times, used = zip(*self.cpu, strict=True)
        return float(np.interp(end, times, used) - np.interp(start, times, used))


def main() -> None:
    """Prints one row a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wires", nargs="+", choices=tuple(LOADS), default=list(LOADS))
    parser.add_argument("--streams", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--offered", nargs="+", type=float, default=[0, 10_000])
    parser.add_argument("--seconds", type=float, default=5.0, help="of a paced run")
    parser.add_argument("--tokens", type=int, default=200_000, help="of a run that is not paced")
    parser.add_argument(
        "--profile", action="store_true", help="print where the event loop's time goes (slower)"
    )
    options = parser.parse_args()
    print(describe_machine())
    print(
        "| wire | streams | offered/s | tokens/s | messages/s | CPU ms/1000 tokens "
        "| share of a core | late p50 ms | late p99 ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for wire in options.wires:
        for streams in options.streams:
            for offered in options.offered:
                setting = Setting(wire, streams, offered, options.profile)
                total = offered * options.seconds if offered else options.tokens
                _report(setting, *_run(setting, max(2, int(total / streams))))


def _run(setting: Setting, tokens: int) -> tuple[list[Stream], Log]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(setting, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(START_SECONDS):
            raise SystemExit(f"the server did not start within {START_SECONDS:.0f} s")
        ports = ours.recv()
        _pin(1)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            streams = runner.run(LOADS[setting.wire](ports[setting.wire], setting.streams, tokens))
        ours.send("stop")
        return streams, ours.recv()
    finally:
        process.join(START_SECONDS)
        process.kill()


def _report(setting: Setting, streams: list[Stream], log: Log) -> None:
    firsts, lasts = [s[0].time for s in streams], [s[-1].time for s in streams]
    # An engine that is not paced is done with its first streams before the last have begun.
    start, end = (max(firsts), min(lasts)) if setting.offered else (min(firsts), max(lasts))
    if end <= start:
        print(
            f"| {setting.wire} | {setting.streams} | {setting.offered:.10} | never did all streams "
            "run at once; ask for more --seconds ||||||"
        )
        return
    within = [one for stream in streams for one in stream if start < one.time <= end]
    tokens = sum(len(one.ids) for one in within)
    seconds, cpu = end - start, log.cpu_between(start, end)
    late = _lateness(within, log.ready_times) * 1000
    offered = f"{setting.offered:,.0f}" if setting.offered else "all"
    print(
        f"| {setting.wire} | {setting.streams} | {offered} | "
        f"{tokens / seconds:,.0f} | {len(within) / seconds:,.0f} | {cpu / tokens * 1e6:.1f} | "
        f"{cpu / seconds:.0%} | {np.percentile(late, 50):.1f} | {np.percentile(late, 99):.1f} |",
        flush=True,
    )


def _lateness(arrivals: Stream, ready_times: Sequence[float]) -> np.ndarray:
    if len(ready_times) > VOCAB:
        # Ids came round: the newest step of that number which was ready.
        newest = [bisect.bisect_right(ready_times, one.time) - 1 for one in arrivals]
        steps = [
            last - (last - token_id) % VOCAB
            for one, last in zip(arrivals, newest, strict=True)
            for token_id in one.ids
        ]
    else:
        steps = [token_id for one in arrivals for token_id in one.ids]
    times = np.repeat([one.time for one in arrivals], [len(one.ids) for one in arrivals])
    return times - np.asarray(ready_times)[steps]


def _serve(setting: Setting, parent: Connection) -> None:
    _pin(0)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve_until_told(setting, parent))


async def _serve_until_told(setting: Setting, parent: Connection) -> None:
    engine = PacedEngine(_shape(setting.streams), lambda active, live: setting.step_seconds)
    words = Tokenizer(
        encode_text=lambda text: [0] * len(text),
        pieces=Pieces([b" word"] * VOCAB),
        bos_id=None,
        eos_ids=frozenset(),
        add_bos=False,
    )
    config = ServerConfig(host="127.0.0.1", port=0, http_port=0, max_tokens=1 << 30)
    server = Server(engine, words, config)
    await server.start()
    used: list[tuple[float, float]] = []
    ended = threading.Event()
    watch = threading.Thread(target=_watch_cpu, args=(used, ended), daemon=True)
    watch.start()
    profile = cProfile.Profile()
    if setting.profile:
        profile.enable()
    parent.send({"grpc": server.port, "http": server.http_port})
    await asyncio.to_thread(parent.recv)
    profile.disable()
    ended.set()
    watch.join()
    await server.stop(0.0)
    if setting.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(PROFILE_ROWS)
    parent.send(Log(engine.ready_times, used))


def _shape(slots: int) -> EngineShape:
    return EngineShape(
        slots=slots,
        cache_length=1 << 20,
        prefills=(PrefillSize(slots, 64),),
        vocab=VOCAB,
        eos_ids=frozenset(),
    )


def _watch_cpu(used: list[tuple[float, float]], ended: threading.Event) -> None:
    while not ended.wait(CPU_EVERY_SECONDS):
        used.append((time.monotonic(), time.process_time()))
    used.append((time.monotonic(), time.process_time()))


def _pin(number: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})


if __name__ == "__main__":
    main()
