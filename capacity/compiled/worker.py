"""Compiles what it is asked for, in a process of its own: the planner's door to the engine.

One JSON object a line comes in, several go out: `hello` once, then for each ask `progress`,
`program` or `refusal` as they are known, and `answer` or `error` at the end. Nothing is allocated.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from capacity.compiled.answer import Answer, Program, Refusal
from capacity.compiled.ask import Ask
from capacity.compiled.hlo import parse
from capacity.compiled.kept import Kept, fingerprint
from capacity.compiled.target import Target
from capacity.compiled.traffic import traffic

PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin")
MISSING = {
    "tpu": "compiling for TPUs takes libtpu, which is not installed for {python}: run `{python} -m "
    "pip install 'loadstone[tpu]'` there, or `make ACCELERATOR=tpu`, or name an interpreter that "
    "has it with --python",
    "gpu": "compiling for GPUs takes JAX's CUDA plugin, which is not installed for {python}: run "
    "`{python} -m pip install 'loadstone[gpu]'` there, or name an interpreter that has it with "
    "--python",
    "cpu": "compiling takes JAX, which is not installed for {python}: run `{python} -m pip install "
    "'loadstone[server]'` there, or name an interpreter that has it with --python",
}
# The two ways in which XLA refuses what is too large for a TPU.
_SIZES = (
    re.compile(r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm"),
    re.compile(r"\(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}

Say = Callable[..., None]


class CannotCompileError(ValueError):
    """An ask that cannot be answered here; says what would work."""


def main() -> int:
    """Answers until there is no more to read. argv: the folder that keeps compiled programs."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    # Compilers write what they like to what is called standard output.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    say = _speaker(out)
    say(hello=versions())
    kept = Kept(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            say(answer=answer(Ask.from_dict(json.loads(line)), kept, say).as_dict())
        except (ValueError, NotImplementedError) as error:
            say(error=str(error))
    return 0


def versions() -> dict[str, str]:
    """Of everything that an answer depends on."""
    found = {"loadstone": fingerprint()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def answer(ask: Ask, kept: Kept, say: Say) -> Answer:
    """Lowers and compiles the programs of the engine with this setting.

    ValueError when the engine cannot be set up so; CannotCompileError when a compiler is missing.
    """
    _require_compiler(ask.target)
    from server.engine.programs import lowerings

    notices: list[str] = []
    plan = _plan(ask, kept.folder, notices.append)
    planned = asdict(plan.memory(plan.parameter_shapes()))
    found = lowerings(plan)
    chosen = _chosen(ask.programs, list(found))
    programs: list[Program] = []
    refusals: list[Refusal] = []
    for number, name in enumerate(chosen, 1):
        title = " ".join(map(str, name))
        say(progress=f"{title} ({number}/{len(chosen)})")
        one = _compile(title, found[name], ask.target, kept)
        if isinstance(one, Refusal):
            refusals.append(one)
            say(refusal=asdict(one))
        else:
            programs.append(one)
            say(program=asdict(one))
    return Answer(
        programs=tuple(programs),
        refusals=tuple(refusals),
        planned=planned,
        device_kind=plan.mesh.devices.flat[0].device_kind,
        limit=ask.target.memory * ask.target.count // plan.mesh.size,
        cache_length=plan.config.cache_length,
        every=tuple(" ".join(map(str, name)) for name in found),
        notices=tuple(notices),
        versions=versions(),
    )


def _require_compiler(target: Target) -> None:
    wanted = {"tpu": ("jax", "libtpu"), "gpu": ("jax",), "cpu": ("jax",)}[target.platform]
    installed = versions()
    plugin = target.platform != "gpu" or any("cuda" in name for name in installed)
    if not plugin or any(name not in installed for name in wanted):
        raise CannotCompileError(MISSING[target.platform].format(python=sys.executable))


def _plan(ask: Ask, cache_dir: Path, report: Callable[[str], None]) -> Any:
    from server.engine import mesh as meshes
    from server.engine.backend import choose_backend
    from server.engine.config import EngineConfig
    from server.engine.engine import EnginePlan
    from server.engine.open import within_reach
    from server.models.spec import ModelSpec

    spec = ModelSpec.from_dict(_tuples(ask.model))
    config = EngineConfig(
        slots=ask.slots,
        cache_length=ask.cache_length,
        chunk=ask.chunk,
        steps=ask.steps,
        weights=ask.weights,
        quantize_kv_cache=ask.cache == "int8",
        sharding=ask.sharding,
    )
    config = within_reach(config, spec, report)
    mesh = meshes.make_mesh(devices_of(ask.target), config.sharding)
    backend = choose_backend(spec, mesh, config, cache_dir, report)
    plan = EnginePlan(spec, config, backend, mesh, frozenset(spec.eos_ids))
    uneven = meshes.uneven_axes(spec, mesh)
    if uneven:
        report(f"kept whole on each of {mesh.size} devices: {', '.join(uneven)}")
    for notice in meshes.moved_splits(spec, backend.forms, mesh):
        report(f"over {mesh.size} devices {notice}")
    return plan


def devices_of(target: Target) -> list[Any]:
    """The devices at hand, or descriptions of such as are not."""
    import jax
    from jax.experimental import topologies

    if not target.topology:
        found = jax.devices(target.platform)
        if len(found) < target.count:
            raise CannotCompileError(
                f"{target.name} is {target.count} devices; this machine has {len(found)} of "
                f"platform {target.platform}"
            )
        return found[: target.count]
    try:
        if target.platform == "tpu":
            options: dict[str, Any] = {}
            if "chips_per_host_bounds" in target.options:
                bounds = target.options["chips_per_host_bounds"].split(",")
                options["chips_per_host_bounds"] = tuple(map(int, bounds))
            if "chip_config_name" in target.options:
                options["chip_config_name"] = target.options["chip_config_name"]
            described = topologies.get_topology_desc(target.topology, "tpu", **options)
        else:
            described = topologies.get_topology_desc(
                target.name,
                "cuda",
                topology=target.topology,
                target_config=target.options["target_config"],
            )
    except (RuntimeError, NotImplementedError) as error:
        raise CannotCompileError(
            f"the compiler does not know {target.name} ({target.topology}): {error}"
        ) from error
    devices = list(described.devices)
    if len(devices) % target.count:
        raise CannotCompileError(
            f"{target.name}: the compiler sees {len(devices)} devices in it, not {target.count}"
        )
    return devices


def _chosen(programs: str, names: list[tuple]) -> list[tuple]:
    """Of all programs those that are asked for, in the order in which an engine compiles them."""
    if programs == "all":
        return names
    decode = max((name for name in names if name[0] == "decode"), key=lambda name: name[1])
    if programs == "decode":
        return [decode]
    prefills = [name for name in names if name[0] == "prefill"]
    whole = max(span for _, _, span in prefills)
    late = [name for name in prefills if name[2] == whole]
    # The longest row and the most rows: what a prefill needs most of lies with one of them.
    return [decode, *dict.fromkeys((max(late), min(late)))]


def _compile(title: str, lower: Callable[[], Any], target: Target, kept: Kept) -> Program | Refusal:
    lowered = lower()
    compilers = {name: each for name, each in versions().items() if name in PACKAGES}
    key = kept.key(lowered.as_text(), target, compilers)
    found = kept.load(key)
    if found is None:
        started = time.monotonic()
        found = _facts(lowered)
        found["seconds"] = time.monotonic() - started
        kept.save(key, found)
    if "message" in found:
        needed, available = _refused(found["message"])
        return Refusal(title, found["message"], needed, available)
    module = parse(found.pop("text"))
    donatable = found.pop("donatable")
    return Program(
        name=title,
        traffic=traffic(module),
        donated=len(module.aliases),
        donatable=donatable,
        **found,
    )


def _facts(lowered: Any) -> dict[str, Any]:
    """What the compiler says in numbers, its program as `text`; or its refusal as `message`."""
    import jax

    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"message": str(error)}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    donatable = sum(one.donated for one in jax.tree.leaves(lowered.args_info))
    return {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "flops": float(cost.get("flops", 0.0)),
        "xla_bytes": float(cost.get("bytes accessed", 0.0)),
        "donatable": donatable,
        "text": compiled.as_text(),
    }


def _refused(message: str) -> tuple[int | None, int | None]:
    """Bytes needed and bytes there, from XLA's message."""
    found = next((each for size in _SIZES if (each := size.search(message))), None)
    if found is None:
        return None, None
    return (
        int(float(found[1]) * _UNITS[found[2]]),
        int(float(found[3]) * _UNITS[found[4]]),
    )


def _tuples(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in model.items()}


def _speaker(out: TextIO) -> Say:
    def say(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    return say


if __name__ == "__main__":
    sys.exit(main())
