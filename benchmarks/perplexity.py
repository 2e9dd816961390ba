"""What int8 costs in quality: the perplexity of a text, read by the server's own decoder.

    python -m benchmarks.perplexity --text FILE --tokens 4096

The text is cut into windows; each is read from an empty cache in chunks, as a prompt is, and every
token but a window's first is scored. The forms of weights and cache are those that the server picks
on this machine.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.machine import describe_machine
from server.engine import mesh as meshes
from server.engine.backend import Backend, choose_backend
from server.engine.config import EngineConfig
from server.engine.open import DEFAULT_MODEL, choose_model
from server.models.decoder import Batch, Cache, forward, logits
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.quant import kv
from server.weights.load import load_parameters
from server.weights.source import Source
from tokenization import default_model_path, load_tokenizer

WINDOW = 1024
CHUNK = 512

# Parameters, cache, batch, targets [T] -> loss of each token [T], cache.
Program = Callable[[Parameters, Cache, Batch, np.ndarray], tuple[jax.Array, Cache]]


@dataclass(frozen=True)
class Kind:
    """How weights are stored, and whether the cache is int8."""

    name: str
    weights: str
    cache: bool


KINDS = (
    Kind("none", "none", False),
    Kind("int8 weights", "int8", False),
    Kind("int8 KV", "none", True),
    Kind("int8", "int8", True),
)


@dataclass(frozen=True)
class Score:
    """Of `tokens` scored tokens; `loss` is the mean negative log-likelihood in nats."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return math.exp(self.loss)


@dataclass(frozen=True)
class Reader:
    """A model that reads windows of a text in chunks, all lengths in tokens."""

    spec: ModelSpec
    backend: Backend
    parameters: Parameters
    window: int
    chunk: int

    def score(self, tokens: Sequence[int]) -> Score:
        """Every window in turn; a last one of a single token has nothing to score."""
        program = jax.jit(self._read, donate_argnums=(1,))
        losses: list[float] = []
        for first in range(0, len(tokens), self.window):
            losses += self._score_window(program, tokens[first : first + self.window])
        return Score(float(np.mean(losses, dtype=np.float64)), len(losses))

    def _score_window(self, program: Program, tokens: Sequence[int]) -> list[float]:
        cache, losses = self._empty_cache(), []
        for start in range(0, len(tokens) - 1, self.chunk):
            part = tokens[start : start + self.chunk + 1]  # the last is only a target
            run = np.zeros(self.chunk + 1, np.int32)
            run[: len(part)] = part
            batch = Batch(
                tokens=jnp.asarray(run[None, :-1]),
                starts=jnp.asarray([start], jnp.int32),
                lengths=jnp.asarray([len(part) - 1], jnp.int32),
                slots=jnp.zeros(1, jnp.int32),
            )
            loss, cache = program(self.parameters, cache, batch, run[1:])
            losses += np.asarray(loss)[: len(part) - 1].tolist()
        return losses

    def _read(
        self, parameters: Parameters, cache: Cache, batch: Batch, targets: jax.Array
    ) -> tuple[Float[Array, " T"], Cache]:
        operations, span = self.backend.operations, self.window
        hidden, cache = forward(self.spec, operations, parameters, cache, batch, span)
        scores = logits(parameters, hidden[0])
        chosen = jnp.take_along_axis(scores, targets[:, None], axis=-1)[:, 0]
        return jax.nn.logsumexp(scores, axis=-1) - chosen, cache

    def _empty_cache(self) -> Cache:
        sizes = (1, self.spec.kv_heads, self.window, self.spec.head_dim, self.backend.cache)
        return tuple(kv.empty(*sizes) for _ in range(self.spec.layers))


def measure(
    source: Source,
    tokens: Sequence[int],
    kind: Kind,
    window: int = WINDOW,
    chunk: int = CHUNK,
    cache_dir: Path | None = None,
) -> Score:
    """Scores a text with one kind of weights and cache, on one device."""
    mesh = meshes.make_mesh(jax.devices()[:1], "model")
    config = EngineConfig(1, window, weights=kind.weights, quantize_kv_cache=kind.cache)
    backend = choose_backend(source.spec, mesh, config, cache_dir)
    places = meshes.parameter_shardings(source.spec, backend.forms, mesh)
    parameters = load_parameters(source, source.spec, backend.forms, backend.compute, places, 1)
    return Reader(source.spec, backend, parameters, window, chunk).score(tokens)


def main(arguments: list[str] | None = None) -> int:
    """Prints a table of all kinds."""
    options = _parse(arguments)
    choice = choose_model(options.model, options.checkpoint, "auto", default_model_path)
    if choice.source is None or choice.checkpoint is None:
        raise SystemExit(f"model {options.model} has no weights to measure")
    text = options.text.read_text(encoding="utf-8")
    tokens = load_tokenizer(options.tokenizer or choice.checkpoint).encode(text)[: options.tokens]
    if len(tokens) < 2:
        raise SystemExit(f"{options.text} has {len(tokens)} tokens; at least 2 are needed")
    print(
        f"{describe_machine()}\n{choice.spec.name}, {options.text.name}, {len(tokens)} tokens, "
        f"window {options.window}, chunk {options.chunk}\n\n"
        f"{'quantized':<14}{'perplexity':>12}{'change':>10}{'scored':>9}{'seconds':>9}"
    )
    base = 0.0
    for kind in KINDS:
        started = time.monotonic()
        score = measure(
            choice.source, tokens, kind, options.window, options.chunk, options.cache_dir
        )
        base = base or score.perplexity
        change = f"{100 * (score.perplexity / base - 1):+.2f}%"
        print(
            f"{kind.name:<14}{score.perplexity:>12.3f}{change:>10}{score.tokens:>9}"
            f"{time.monotonic() - started:>9.0f}",
            flush=True,
        )
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help="a file of plain text")
    parser.add_argument("--tokens", type=int, help="how many from its beginning; default: all")
    parser.add_argument("--window", type=int, default=WINDOW, help="tokens that see each other")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="tokens read in one dispatch")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="as for the server")
    parser.add_argument("--checkpoint", type=Path, help="as for the server")
    parser.add_argument("--tokenizer", type=Path, help="default: the checkpoint's own")
    parser.add_argument("--cache-dir", type=Path, help="keeps the compiled CPU kernel")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
