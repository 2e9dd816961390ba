"""From the server's command line to an engine that is ready."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import jax

from server import options as command_line
from server.engine.config import EngineConfig
from server.engine.engine import JaxEngine
from server.engine.memory import DoesNotFitError
from server.engine.open import ModelChoice, choose_model, open_engine
from server.engine.uncached import Uncached, open_uncached
from tokenization import (
    Tokenizer,
    TokenizerError,
    default_model_path,
    load_tokenizer,
    verify_checksum,
)

# What is not of this file is for those whose only door this is.
__all__ = [
    "DoesNotFitError",
    "JaxEngine",
    "Parts",
    "Progress",
    "Uncached",
    "build_engine",
    "build_uncached",
    "choose_parts",
]


@dataclass(frozen=True)
class Parts:
    """What an engine is built from. `tokenizer` None: token ids only."""

    devices: list[jax.Device]
    choice: ModelChoice
    tokenizer: Tokenizer | None


def choose_parts(options: argparse.Namespace, *, text: bool = True) -> Parts:
    """Finds devices, model and tokenizer; without `text` token ids are enough, and there is none.

    Raises ValueError, OSError or TokenizerError.
    """
    devices = _devices(options)
    choice = choose_model(options.model, options.checkpoint, options.load_format, _embedded_model)
    return Parts(devices, choice, _tokenizer(options, choice) if text else None)


def build_engine(options: argparse.Namespace, parts: Parts) -> JaxEngine:
    """Loads and compiles, with progress on the error stream. Raises ValueError or OSError."""
    choice, tokenizer = parts.choice, parts.tokenizer
    weights, cache = command_line.quantization(options)
    settings = {
        "cache_length": options.cache_length,
        "chunk": options.prefill_chunk,
        "prefill_rows": options.prefill_rows,
        "row_tokens": options.prefill_row_tokens,
        "steps": options.decode_steps,
        "weights": weights,
        "quantize_kv_cache": cache,
        "sharding": options.sharding,
        "attention": options.attention,
    }
    config = None
    if options.batch_size is not None:
        config = EngineConfig(slots=options.batch_size, **settings)
    eos = frozenset(choice.spec.eos_ids) | (tokenizer.eos_ids if tokenizer else frozenset())
    progress = Progress()
    try:
        return open_engine(
            choice,
            config,
            eos,
            devices=parts.devices,
            cache_dir=options.cache_dir,
            save_quantized=options.save_quantized,
            report=progress.line,
            **settings,
        )
    finally:
        progress.close()


def build_uncached(options: argparse.Namespace, parts: Parts) -> Uncached:
    """For forwards without a KV cache: loads, and compiles nothing yet. Raises ValueError or
    OSError. Of the options, those about slots and cache do not matter."""
    progress = Progress()
    try:
        return open_uncached(
            parts.choice,
            weights=command_line.quantization(options)[0],
            attention=options.attention,
            sharding=options.sharding,
            devices=parts.devices,
            cache_dir=options.cache_dir,
            report=progress.line,
        )
    finally:
        progress.close()


def _devices(options: argparse.Namespace) -> list[jax.Device]:
    if options.virtual_cpu_devices is not None:
        if options.platform not in (None, "cpu"):
            raise ValueError("--virtual-cpu-devices goes with --platform cpu only")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.virtual_cpu_devices)
    try:
        devices = jax.devices(options.platform)
    except RuntimeError as error:
        raise ValueError(f"no devices of platform {options.platform}: {error}") from error
    count = options.devices or len(devices)
    if not 1 <= count <= len(devices):
        raise ValueError(f"--devices is {options.devices}; there are {len(devices)}")
    print(f"devices: {count} x {devices[0].device_kind}", file=sys.stderr)
    return devices[:count]


def _embedded_model() -> Path:
    path = default_model_path()
    verify_checksum(path)
    return path


def _tokenizer(options: argparse.Namespace, choice: ModelChoice) -> Tokenizer | None:
    path = options.tokenizer or choice.checkpoint
    if path is None:
        print("no tokenizer with random weights: token ids only", file=sys.stderr)
        return None
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > choice.spec.vocab:
        raise TokenizerError(
            f"tokenizer {path} has {tokenizer.vocab_size} tokens and model {choice.spec.name} only "
            f"{choice.spec.vocab}; they do not belong together: pass the model's own with "
            "--tokenizer"
        )
    return tokenizer


class Progress:
    """One line per step of the start-up; on a terminal, steps of a kind overwrite each other."""

    def __init__(self) -> None:
        self._kind = ""

    def line(self, text: str) -> None:
        """Shows `text`."""
        kind = text.split()[0]
        if sys.stderr.isatty():
            lead = "\r\033[K" if kind == self._kind else "\n" if self._kind else ""
            print(f"{lead}{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
        self._kind = kind

    def close(self) -> None:
        """Ends the line that was being overwritten."""
        if self._kind and sys.stderr.isatty():
            print(file=sys.stderr)
        self._kind = ""
