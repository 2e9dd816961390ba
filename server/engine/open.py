"""From a model's name to an engine ready to run: the one door for servers and in-process use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from server.engine import memory
from server.engine import mesh as meshes
from server.engine.backend import Backend, choose_backend
from server.engine.config import EngineConfig
from server.engine.engine import EnginePlan, JaxEngine
from server.models.catalogue import catalogue
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.weights.dummy import dummy_parameters
from server.weights.gguf import GGUFSource
from server.weights.load import load_parameters
from server.weights.safetensors import SafetensorsSource
from server.weights.saved import SavedWeights
from server.weights.source import CheckpointError, Source

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_SLOTS = 32
LOAD_FORMATS = ("auto", "dummy")
# Kept free beside the plan: XLA's own buffers, the tokenizer, the host program.
HEADROOM = 0.05

Report = Callable[[str], None]


@dataclass(frozen=True)
class ModelChoice:
    """A model and where its weights are. `checkpoint` None: random weights and no tokenizer."""

    spec: ModelSpec
    checkpoint: Path | None
    source: Source | None


def choose_model(
    name: str, checkpoint: Path | None, load_format: str, embedded: Callable[[], Path]
) -> ModelChoice:
    """Finds a model by catalogue name, directory or .gguf file.

    `embedded` gives the path of the default model's file. CheckpointError says what to pass when a
    name comes without weights, or lists what is known.
    """
    if load_format not in LOAD_FORMATS:
        raise ValueError(f"load format is {load_format!r}; allowed: {', '.join(LOAD_FORMATS)}")
    known = catalogue()
    if name not in known and not Path(name).exists():
        raise CheckpointError(
            f"model {name!r} is neither a known name nor a path that exists; known names: "
            f"{', '.join(known)}; a path is a directory with config.json and .safetensors files, "
            "or a .gguf file"
        )
    if load_format == "dummy":
        spec = known[name] if name in known else open_source(Path(name)).spec
        return ModelChoice(spec, None, None)
    if name not in known:
        source = open_source(Path(name))
        return ModelChoice(source.spec, Path(name), source)
    if checkpoint is None:
        if name != DEFAULT_MODEL:
            raise CheckpointError(
                f"model {name} needs its weights: pass CHECKPOINT=DIR (--checkpoint DIR) with a "
                "Hugging Face directory or a .gguf file, or LOAD_FORMAT=dummy "
                "(--load-format dummy) for random ones"
            )
        checkpoint = embedded()
    source = open_source(checkpoint)
    _check_shape(known[name], source.spec, checkpoint)
    return ModelChoice(replace(source.spec, name=name), checkpoint, source)


def open_source(path: Path) -> Source:
    """A checkpoint's tensors; nothing is read but its description."""
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.is_dir():
        return SafetensorsSource(path)
    if path.suffix == ".gguf":
        return GGUFSource(path)
    raise CheckpointError(
        f"checkpoint {path} is neither a directory (config.json, .safetensors) nor a .gguf file"
    )


def open_engine(
    choice: ModelChoice,
    config: EngineConfig | None,
    eos_ids: frozenset[int],
    *,
    devices: Sequence[jax.Device] | None = None,
    cache_dir: Path | None = None,
    save_quantized: Path | None = None,
    report: Report = lambda _: None,
    **settings: Any,
) -> JaxEngine:
    """Plans, refuses what cannot fit, loads the weights and compiles.

    With `config` None the batch is the largest up to 32 that fits, `settings` being the rest of
    EngineConfig. `cache_dir` keeps compiled programs and the CPU kernel, `save_quantized` quantized
    weights. `report` gets progress.
    """
    plan, parameters = load_engine(
        choice,
        config,
        eos_ids,
        devices=devices,
        cache_dir=cache_dir,
        save_quantized=save_quantized,
        report=report,
        **settings,
    )
    return JaxEngine(plan, parameters, report)


def load_engine(
    choice: ModelChoice,
    config: EngineConfig | None,
    eos_ids: frozenset[int],
    *,
    devices: Sequence[jax.Device] | None = None,
    cache_dir: Path | None = None,
    save_quantized: Path | None = None,
    report: Report = lambda _: None,
    **settings: Any,
) -> tuple[EnginePlan, Parameters]:
    """As `open_engine`, with nothing compiled yet."""
    devices = list(devices or jax.devices())
    if cache_dir is not None:
        use_compile_cache(cache_dir)
    automatic = config is None
    if config is None:
        config = EngineConfig(slots=len(devices), **settings)
    spec = choice.spec
    config = within_reach(config, spec, report)
    mesh = meshes.make_mesh(devices, config.sharding)
    backend = choose_backend(spec, mesh, config, cache_dir, report)
    plan = EnginePlan(spec, config, backend, mesh, eos_ids)
    shapes = plan.parameter_shapes()
    limit = int(memory.free_bytes(devices) * (1 - HEADROOM))

    def plan_for(config: EngineConfig) -> memory.MemoryPlan:
        return plan.memory(shapes, config)

    granule = mesh.shape["data"]
    if automatic:
        most = memory.largest_batch(config, plan_for, limit, granule)
        slots = max(min(most, -(-DEFAULT_SLOTS // granule) * granule), granule)
        plan = replace(plan, config=replace(config, slots=slots))
    needed = memory.check_fit(spec.name, plan.config, plan_for, limit, granule)
    report(f"memory: {needed} per device, {limit / memory.GIB:.2f} GiB free")
    placed = place_parameters(choice, config.weights, backend, mesh, shapes, report, save_quantized)
    return plan, placed


def place_parameters(
    choice: ModelChoice,
    weights: str,
    backend: Backend,
    mesh: Mesh,
    shapes: Parameters,
    report: Report,
    save_quantized: Path | None = None,
) -> Parameters:
    """Weights by the scheme `weights`, with these shapes, on the devices of the mesh: from what an
    earlier start saved, or from the checkpoint, or random ones."""
    how = choice, weights, backend, mesh, shapes, report, save_quantized
    parameters = jax.block_until_ready(_parameters(*how))
    memory.give_back()
    return parameters


def _parameters(
    choice: ModelChoice,
    weights: str,
    backend: Backend,
    mesh: Mesh,
    shapes: Parameters,
    report: Report,
    save_quantized: Path | None,
) -> Parameters:
    spec = choice.spec
    uneven = meshes.uneven_axes(spec, mesh)
    if uneven:
        report(f"kept whole on each of {mesh.size} devices: {', '.join(uneven)}")
    for notice in meshes.moved_splits(spec, backend.forms, mesh):
        report(f"over {mesh.size} devices {notice}")

    def progress(done: int, of: int) -> None:
        if done % 8 == 0 or done == of:
            report(f"weights: layer {done}/{of}")

    places = meshes.parameter_shardings(spec, backend.forms, mesh)
    how = backend.forms, backend.compute, places, meshes.mlp_blocks(spec, mesh)
    if choice.source is None:
        _refuse_saving(save_quantized, "random weights are made faster than they are read")
        return dummy_parameters(spec, *how, report=progress)
    if save_quantized is None:
        return load_parameters(choice.source, spec, *how, progress)
    if weights == "none" or choice.checkpoint is None:
        _refuse_saving(save_quantized, "these weights are not quantized; choose a scheme")
    assert choice.checkpoint is not None
    saved = SavedWeights.find(save_quantized, choice.checkpoint, weights, shapes)
    if saved.path.exists():
        return saved.load(places, report)
    parameters = load_parameters(choice.source, spec, *how, progress)
    try:
        saved.save(parameters, report)
    except OSError as error:
        report(f"not saved for the next start: {saved.path}: {error}")
    return parameters


def use_compile_cache(cache_dir: Path) -> None:
    """Keeps compiled programs in a folder of `cache_dir` between starts."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _refuse_saving(folder: Path | None, why: str) -> None:
    if folder is not None:
        raise ValueError(f"--save-quantized {folder}: {why}, or leave the option out")


def within_reach(config: EngineConfig, spec: ModelSpec, report: Report) -> EngineConfig:
    """No slot keeps positions that the model's attention never comes to. A cache of just its
    sliding window, rolling, is the model's own attention.
    """
    longest = spec.longest_cache
    if longest is None or config.cache_length <= longest:
        return config
    why = "positions" if longest == spec.position_limit else "sliding window"
    report(f"cache length {longest} instead of {config.cache_length}: the model's {why}")
    return replace(config, cache_length=longest)


def _check_shape(known: ModelSpec, found: ModelSpec, path: Path) -> None:
    fields = ("family", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab")
    wrong = [
        f"{field} {getattr(found, field)} instead of {getattr(known, field)}"
        for field in fields
        if getattr(found, field) != getattr(known, field)
    ]
    if wrong:
        raise CheckpointError(f"checkpoint {path} is not {known.name}: {', '.join(wrong)}")
