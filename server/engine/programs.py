"""The programs of an engine, lowered from shapes alone: for devices that are here and for such as
are only described (`jax.experimental.topologies`).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from server.engine import mesh as meshes
from server.engine import state as states
from server.engine.state import SlotState
from server.engine.steps import Steps

if TYPE_CHECKING:
    from server.engine.engine import EnginePlan

# ("decode", span), ("prefill", tokens, span) or ("release",).
Name = tuple[str | int, ...]


def compile_all(plan: "EnginePlan", report: Callable[[str], None]) -> dict[Name, Any]:
    """Every program, ahead of time. Two at once: XLA compiles on one core for most of the time."""
    started = time.monotonic()
    programs = {}
    with ThreadPoolExecutor(2) as pool:
        # Nothing keeps a lowered program once it is compiled: it is as large as what comes of it.
        futures = {name: pool.submit(lower().compile) for name, lower in lowerings(plan).items()}
        for done, (name, future) in enumerate(futures.items(), 1):
            programs[name] = future.result()
            report(
                f"compiled {done}/{len(futures)} programs, {time.monotonic() - started:.0f} s "
                f"({' '.join(map(str, name))})"
            )
    return programs


def lowerings(plan: "EnginePlan") -> dict[Name, Callable[[], jax.stages.Lowered]]:
    """Every program by its name. Calling one traces and lowers it; nothing is allocated."""
    config, mesh = plan.config, plan.mesh
    whole = meshes.whole(mesh)
    steps = Steps(plan.model, plan.backend.operations, tuple(sorted(plan.eos_ids)))
    kept = (meshes.cache_sharding(plan.model, mesh), meshes.slot_sharding(mesh))
    decode = jax.jit(
        steps.decode,
        static_argnames=("span", "steps"),
        donate_argnums=(1, 2),
        out_shardings=(*kept, whole),
    )
    prefill = jax.jit(
        steps.prefill,
        static_argnames=("span",),
        donate_argnums=(1, 2),
        out_shardings=(*kept, whole),
    )
    release = jax.jit(steps.release, donate_argnums=(0,), out_shardings=kept[1])
    parameters = plan.parameter_shapes()
    cache = placed(jax.eval_shape(lambda: plan.empty_cache(config)), kept[0])
    state = placed(jax.eval_shape(lambda: states.idle(config.slots)), kept[1])
    released = jax.ShapeDtypeStruct((config.slots,), bool, sharding=kept[1])

    def lower_decode(span: int) -> Callable[[], jax.stages.Lowered]:
        return lambda: decode.lower(parameters, cache, state, span=span, steps=config.steps)

    def lower_prefill(rows: int, tokens: int, span: int) -> Callable[[], jax.stages.Lowered]:
        shape = (rows, states.COLUMNS + tokens)
        packed = jax.ShapeDtypeStruct(shape, np.int32, sharding=whole)
        return lambda: prefill.lower(parameters, cache, state, packed, span=span)

    found: dict[Name, Callable[[], jax.stages.Lowered]] = {}
    for span in plan.spans:
        found["decode", span] = lower_decode(span)
    for size, span in plan.prefills:
        found["prefill", size.tokens, span] = lower_prefill(size.rows, size.tokens, span)
    found["release",] = lambda: release.lower(state, released)
    return found


def empty(plan: "EnginePlan") -> tuple[Any, SlotState]:
    """A cache of zeros and a state in which no slot is active, on the devices."""
    config, mesh = plan.config, plan.mesh
    kept, slots = meshes.cache_sharding(plan.model, mesh), meshes.slot_sharding(mesh)
    cache = jax.jit(lambda: plan.empty_cache(config), out_shardings=kept)()
    return cache, jax.jit(lambda: states.idle(config.slots), out_shardings=slots)()


def placed(shapes: Any, shardings: Any) -> Any:
    """A tree of shapes with a sharding for each; `shardings` may stand for whole subtrees."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        jax.tree.broadcast(shardings, shapes),
    )
