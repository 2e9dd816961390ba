"""Our server over a device that never drifts: everything is real but the time that dispatches take.

    python -m benchmarks.steady_server --port 9000 --ready-file ready.json

The engine sleeps as long as a dispatch is said to take, so what a client sees depends on scheduler,
API and network alone. The seconds are of the order of SmolLM2-135M in int8 on two cores, and not of
the form that the planner's model has.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paced_engine import PacedEngine
from server.api.config import ServerConfig
from server.api.event_loop import new_event_loop
from server.api.server import Server
from server.engine.protocol import EngineShape, PrefillChunk, PrefillSize
from server.models import sizes
from tokenization import default_model_path, load_tokenizer

STEP, SEQUENCE, POSITION = 7e-3, 6e-4, 1e-6
CHUNK = 512
DISPATCH, PROMPT, TOKEN, PAIR = 4e-3, 1.5e-3, 4e-4, 4e-7


def decode_seconds(active: int, live: int) -> float:
    """Of a decode step of so many sequences with so many positions."""
    return STEP + SEQUENCE * active + POSITION * live


def prefill_seconds(chunks: Sequence[PrefillChunk]) -> float:
    """Of a dispatch; attention grows with the square of a prompt."""
    return DISPATCH + sum(
        PROMPT + len(chunk.tokens) * (TOKEN + PAIR * (chunk.start + len(chunk.tokens) / 2))
        for chunk in chunks
    )


def main() -> int:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cache-length", type=int, default=1024)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(default_model_path())
    padded = sizes.prefill_sizes(options.batch_size, options.cache_length, CHUNK)
    shape = EngineShape(
        slots=options.batch_size,
        cache_length=options.cache_length,
        prefills=tuple(PrefillSize(*size) for size in padded),
        vocab=tokenizer.vocab_size,
        eos_ids=frozenset(),
    )
    engine = PacedEngine(shape, decode_seconds, prefill_seconds)
    server = Server(engine, tokenizer, ServerConfig(host="127.0.0.1", port=options.port))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    options.ready_file.write_text(json.dumps({"port": server.port}))
    await stop.wait()
    return 0 if await server.stop(0.0) else 1


if __name__ == "__main__":
    sys.exit(main())
