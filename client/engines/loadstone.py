"""Our own engine, without scheduler and server: as many slots as rows, one dispatch ahead."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from client.engines.ask import GENERATE, LOSS, Ask
from client.engines.engine import ColdStart, DoesNotFit, Engine, Facts, Made, Unavailable
from client.errors import DoesNotFitError, UsageError
from client.targets.in_process import (
    LocalEngine,
    explained,
    greedy_chunk,
    import_server,
    load_uncached,
)

if TYPE_CHECKING:
    from client.targets.in_process import JaxEngine, Uncached

_LIBRARIES = ("jax", "jaxlib", "numpy")
_GRANULE = 16  # positions that a cache length is rounded up to
# Tokens read in one dispatch: enough to fill a chip, and a bound on its scratch memory.
_MOST_READ = 4096
# Of a GPU's memory; JAX leaves a quarter by default, and a sweep goes to the end of it.
_GPU_SHARE = "0.92"


def open_engine(ask: Ask) -> Engine:
    """Loads and compiles. `Unavailable` without the server's libraries, `DoesNotFit` when the
    engine refuses the setting."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", _GPU_SHARE)
    began = perf_counter()
    try:
        import_server()
        imports = perf_counter() - began
        return _slots(ask, imports) if ask.task == GENERATE else _passes(ask, imports)
    except UsageError as error:
        raise Unavailable(str(error)) from error
    except DoesNotFitError as error:
        raise DoesNotFit(str(error)) from error


def _slots(ask: Ask, imports: float) -> "Slots":
    began = perf_counter()
    engine = LocalEngine(server_options(ask), text=False).engine
    taken, compiled = perf_counter() - began, engine.compile_seconds
    return Slots(engine, ask.attention, ColdStart(imports, taken - compiled, compiled))


def _passes(ask: Ask, imports: float) -> "Passes":
    began = perf_counter()
    uncached = load_uncached(server_options(ask))
    loaded = perf_counter()
    program = "losses" if ask.task == LOSS else "next_logits"
    with explained("the program cannot be compiled"):
        uncached.compile(program, ask.batch, ask.context)
        temporaries = uncached.memory(ask.batch, ask.context, program)
    cold = ColdStart(imports, loaded - began, perf_counter() - loaded)
    return Passes(uncached, temporaries, cold)


class Slots:
    """Generation: the prompts in as few prefill dispatches as they fit in, then steps."""

    def __init__(self, engine: "JaxEngine", attention: str, cold: ColdStart) -> None:
        self._engine = engine
        self._attention = attention
        self.cold = cold

    def facts(self) -> Facts:
        """See `Engine`."""
        summary = self._engine.summary
        return Facts(
            device=summary.device_kind,
            devices=summary.devices,
            attention=self._attention,
            versions=_versions(),
            parameters=summary.parameters,
            sizes=_sizes(self._engine.model),
            weight_bytes=summary.weight_bytes,
            step_weight_bytes=summary.step_weight_bytes,
            cache_bytes_per_position=summary.cache_bytes_per_position,
            temporary_bytes=self._engine.temporaries,
        )

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """See `Engine`. The next dispatch is under way before the last one's tokens are read."""
        rows: list[list[int]] = [[] for _ in prompts]
        stamps: list[float] = []
        under_way = self._read(prompts, new)
        asked = 1
        while under_way:
            following = []
            if asked < new:
                following.append(self._engine.decode())
                asked += self._engine.config.steps
            for step in under_way:
                for token in step.tokens():
                    rows[token.slot].append(token.token_id)
            stamps += [perf_counter()] * (len(rows[0]) - len(stamps))
            under_way = following
        short = [slot for slot, row in enumerate(rows) if len(row) != new]
        if short:
            raise RuntimeError(f"{len(short)} of {len(rows)} rows do not have {new} tokens")
        return Made(stamps, rows[0])

    def window(self, rows: Sequence[Sequence[int]]) -> Any:
        """See `Engine`."""
        raise NotImplementedError("slots have a cache; passes without one are of `Passes`")

    advance = loss = window

    def reset_peak(self) -> bool:
        """See `Engine`."""
        return False

    def peak_bytes(self) -> int | None:
        """See `Engine`."""
        return self._engine.peak_bytes

    def _read(self, prompts: Sequence[Sequence[int]], new: int) -> list[Any]:
        """Dispatches all prompts, as many rows together as the engine takes."""
        shape = self._engine.shape
        size = shape.prefill_size(min(max(map(len, prompts)), shape.chunk))
        steps = []
        for first in range(0, len(prompts), size.rows):
            group = range(first, min(first + size.rows, len(prompts)))
            for start in range(0, max(len(prompts[slot]) for slot in group), size.tokens):
                end = start + size.tokens
                chunks = [
                    greedy_chunk(
                        slot,
                        prompts[slot][start:end],
                        start,
                        last=end >= len(prompts[slot]),
                        max_tokens=new,
                    )
                    for slot in group
                    if start < len(prompts[slot])
                ]
                steps.append(self._engine.prefill(chunks))
        return steps


class Passes:
    """Whole forwards without a KV cache."""

    def __init__(self, uncached: "Uncached", temporaries: int, cold: ColdStart) -> None:
        self._uncached = uncached
        self._temporaries = temporaries
        self.cold = cold

    def facts(self) -> Facts:
        """See `Engine`."""
        uncached = self._uncached
        return Facts(
            device=uncached.devices[0].device_kind,
            devices=len(uncached.devices),
            attention=uncached.attention,
            versions=_versions(),
            parameters=uncached.spec.parameters,
            sizes=_sizes(uncached.spec),
            weight_bytes=uncached.weight_bytes,
            temporary_bytes=self._temporaries,
        )

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """See `Engine`."""
        raise NotImplementedError("generation has a cache; it is of `Slots`")

    def window(self, rows: Sequence[Sequence[int]]) -> Any:
        """See `Engine`."""
        return np.asarray(rows, np.int32)

    def advance(self, window: Any) -> Any:
        """See `Engine`."""
        following = np.asarray(self._uncached.next_logits(window)).argmax(-1)
        return np.concatenate([window[:, 1:], following[:, None].astype(np.int32)], axis=1)

    def loss(self, window: Any) -> float:
        """See `Engine`."""
        return self._uncached.loss(window)

    def reset_peak(self) -> bool:
        """See `Engine`."""
        return False

    def peak_bytes(self) -> int | None:
        """See `Engine`."""
        return self._uncached.peak_bytes


def server_options(ask: Ask) -> list[str]:
    """The point in the words of the server's command line."""
    model = ask.model
    words = ["--model", model.config or model.checkpoint or ""]
    words += ["--load-format", "auto" if model.config is None else "dummy"]
    words += ["--quantize", ask.kind, "--attention", ask.attention]
    if ask.task == GENERATE:
        words += _slot_options(ask)
    if ask.platform is not None:
        words += ["--platform", ask.platform]
    if ask.cache_dir is not None:
        words += ["--cache-dir", ask.cache_dir]
    return [*words, *ask.options]


def _slot_options(ask: Ask) -> list[str]:
    longest = max(ask.prompts)
    row = min(longest, _MOST_READ)
    rows = min(ask.batch, _MOST_READ // row)
    cache_length = -(-(longest + ask.new_tokens) // _GRANULE) * _GRANULE
    sizes = {
        "--batch-size": ask.batch,
        "--cache-length": cache_length,
        "--prefill-chunk": row * rows,
        "--prefill-rows": rows,
        "--prefill-row-tokens": row,
    }
    return [word for name, value in sizes.items() for word in (name, str(value))]


def _sizes(spec: Any) -> dict[str, int]:
    """Of the server's `ModelSpec`."""
    sizes = {
        "layers": spec.layers,
        "heads": spec.heads,
        "head_dim": spec.head_dim,
        "hidden": spec.hidden,
        "vocab": spec.vocab,
        "tied": int(spec.tied),
    }
    return sizes if spec.sliding_window is None else {**sizes, "window": spec.sliding_window}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}
