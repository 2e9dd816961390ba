"""An engine with all its slots at work, in a process that somebody else watches.

    python -m benchmarks.memory_trial ASK

ASK is JSON (`Ask`). Each line of the output is JSON: a stage that was reached, the bytes that the
process has by both counts of `memory_limit`, resident bytes now, and on a GPU what the runtime says
that the device holds. Everything is as in a server's first start, for which nothing is compiled
yet; then every size of prefill and decode runs over whole spans, every slot sampling with all
limits. Zeros of the cache are written when it is made: none of it is memory that is only promised.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory_limit import LIMITS, counted

STEPS = 3
BASE = "base"


@dataclass(frozen=True)
class Ask:
    """batch 0: only what every engine needs before it has anything, which is the stage BASE."""

    model: str
    weights: str
    cache: str
    length: int
    batch: int
    platform: str
    cache_dir: str


def main() -> int:
    """Exit status 0, or that of whatever stopped it."""
    ask = Ask(**json.loads(sys.argv[1]))
    run(ask, lambda stage: print(json.dumps(stage), flush=True))
    return 0


def run(ask: Ask, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Tells of each stage when it is over."""
    import jax

    from server.engine import mesh as meshes
    from server.engine.backend import choose_backend
    from server.engine.config import EngineConfig
    from server.engine.engine import EnginePlan, JaxEngine
    from server.engine.open import (
        DEFAULT_MODEL,
        choose_model,
        place_parameters,
        use_compile_cache,
        within_reach,
    )
    from server.kernels import build
    from tokenization import default_model_path

    jax.config.update("jax_platforms", "cuda" if ask.platform == "gpu" else ask.platform)
    device = jax.devices()[0]
    kernels = Path(ask.cache_dir)
    build.load(kernels)
    jax.block_until_ready(jax.numpy.zeros(8))
    tell(_stage(BASE, device))
    if ask.batch == 0:
        return
    load_format = "auto" if ask.model == DEFAULT_MODEL else "dummy"
    choice = choose_model(ask.model, None, load_format, default_model_path)
    config = EngineConfig(
        slots=ask.batch,
        cache_length=ask.length,
        weights=ask.weights,
        quantize_kv_cache=ask.cache == "int8",
    )
    config = within_reach(config, choice.spec, _say)
    mesh = meshes.make_mesh([device], config.sharding)
    plan = EnginePlan(
        choice.spec, config, choose_backend(choice.spec, mesh, config, kernels, _say), mesh,
        frozenset(choice.spec.eos_ids),
    )  # fmt: skip
    # As the engine does when it is opened, but that nobody asks whether it will fit.
    shapes = plan.parameter_shapes()
    parameters = place_parameters(choice, config.weights, plan.backend, mesh, shapes, _say)
    # A file that is mapped is no memory that can run out.
    del choice
    tell(_stage("loaded", device))
    with tempfile.TemporaryDirectory() as empty:
        use_compile_cache(Path(empty))
        engine = JaxEngine(plan, parameters, _say)
    tell(
        _stage("ready", device)
        | {
            "plan": asdict(plan.memory(parameters)),
            "temporaries": engine.temporaries,
            "programs": len(engine.programs),
        }
    )
    _work(engine)
    tell(_stage("done", device))


def _work(engine: Any) -> None:
    """Every program, all slots."""
    from server.engine.protocol import PrefillChunk, Sampling

    shape = engine.shape
    sampling = Sampling(temperature=1.0, top_k=50, top_p=0.9)

    def read(slots: range, tokens: int, start: int) -> None:
        chunks = [
            PrefillChunk(
                slot, [7] * tokens, start, True, sampling, max_tokens=2 * STEPS,
                ignore_eos=True, logprobs=True,
            )
            for slot in slots
        ]  # fmt: skip
        engine.prefill(chunks).tokens()

    # Just before the end: attention then reads whole slots.
    last = shape.cache_length - 2 * STEPS
    for size in shape.prefills:
        for start in (0, max(last - size.tokens, 0)):
            read(range(min(size.rows, shape.slots)), size.tokens, start)
    small = shape.prefills[0]
    for first in range(0, shape.slots, small.rows):
        slots = range(first, min(first + small.rows, shape.slots))
        read(slots, min(small.tokens, last), max(last - small.tokens, 0))
    for _ in range(STEPS):
        engine.decode().tokens()


def _stage(name: str, device: Any) -> dict[str, Any]:
    stats = {} if device.platform == "cpu" else device.memory_stats() or {}
    resident = Path("/proc/self/statm").read_text().split()[1]
    return {
        "stage": name,
        **{kind: counted(kind) for kind in LIMITS},
        "now": int(resident) * 4096,
        **{
            key: stats[key]
            for key in ("bytes_limit", "bytes_in_use", "peak_bytes_in_use")
            if key in stats
        },
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
