"""The server's command line."""

import argparse
from pathlib import Path

from server.attention.names import IMPLEMENTATIONS
from server.models.catalogue import catalogue
from server.quant.schemes import SCHEMES

DEFAULT_CACHE = Path.home() / ".cache" / "loadstone"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of `python -m server`. Exits with status 2 on one that is not known."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serves a language model over gRPC (JetStream's Orchestrator service) and HTTP "
        "(OpenAI's completions).",
    )
    _add_model(parser.add_argument_group("model"))
    _add_engine(parser.add_argument_group("engine"))
    _add_devices(parser.add_argument_group("devices"))
    _add_listening(parser.add_argument_group("listening"))
    return parser.parse_args(arguments)


def quantization(options: argparse.Namespace) -> tuple[str, bool]:
    """How weights are stored, and whether the KV cache is int8."""
    weights, cache = options.quantize_weights, options.quantize_kv_cache
    if cache is None:
        cache = options.quantize == "int8"
    return options.quantize if weights is None else weights, cache


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default="smollm2-135m",
        help="a directory with config.json and .safetensors files, a .gguf file, or one of: "
        + ", ".join(catalogue()),
    )
    group.add_argument("--checkpoint", type=Path, help="where a model named above has its weights")
    group.add_argument("--tokenizer", type=Path, help="default: the checkpoint's own")
    group.add_argument("--served-model-name", help="for HTTP clients; default: the model's own")
    group.add_argument(
        "--load-format", choices=("auto", "dummy"), default="auto", help="dummy: random weights"
    )
    group.add_argument(
        "--quantize",
        choices=SCHEMES,
        default="none",
        help="how weights are stored; int8 stores the KV cache so, too. "
        + "; ".join(f"{scheme.name}: {scheme.text}" for scheme in SCHEMES.values()),
    )
    group.add_argument(
        "--save-quantized",
        type=Path,
        metavar="DIR",
        help="keep quantized weights there, and start from them the next time",
    )
    group.add_argument(
        "--quantize-weights", choices=SCHEMES, help="weights alone; default: as --quantize says"
    )
    group.add_argument(
        "--quantize-kv-cache",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="int8; default: as --quantize says",
    )


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch-size", type=int, help="slots; default: the most up to 32 that fit in memory"
    )
    group.add_argument("--cache-length", type=int, default=1024, help="positions kept per slot")
    group.add_argument(
        "--rolling",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="requests may outgrow the cache and attend to its last positions",
    )
    group.add_argument(
        "--prefill-chunk",
        type=int,
        default=512,
        help="prompt tokens a dispatch: of one prompt, or of several short ones",
    )
    group.add_argument(
        "--prefill-rows", type=int, default=8, help="the most prompts in a prefill dispatch"
    )
    group.add_argument(
        "--prefill-row-tokens", type=int, help="the most tokens of each (default: the chunk)"
    )
    group.add_argument(
        "--attention",
        choices=IMPLEMENTATIONS,
        default="flash",
        help="flash: the fastest that the device has; reference: plain XLA",
    )
    group.add_argument("--decode-steps", type=int, default=1, help="decode steps a dispatch")
    group.add_argument(
        "--prefills-per-decode", type=int, default=1, help="prefill dispatches between two decodes"
    )


def _add_devices(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--platform", choices=("cpu", "gpu", "tpu"), help="default: JAX's choice")
    group.add_argument("--devices", type=int, help="how many to use; default: all")
    group.add_argument(
        "--virtual-cpu-devices", type=int, help="split the CPU into this many, to try sharding"
    )
    group.add_argument(
        "--sharding",
        choices=("model", "batch"),
        default="model",
        help="over several devices: split the weights, or the slots",
    )
    group.add_argument(
        "--cache-dir",
        type=Path,
        default=DEFAULT_CACHE,
        help="keeps compiled programs between starts",
    )
    group.add_argument("--profiler-port", type=int, help="JAX profiler server (TensorBoard)")


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="0.0.0.0")
    group.add_argument("--port", type=int, default=9000, help="gRPC; 0: any free one")
    group.add_argument(
        "--http-port", type=int, help="OpenAI's interface over HTTP; 0: any free one"
    )
    group.add_argument("--tls-cert", type=Path, help="PEM certificate chain: gRPC and HTTP use TLS")
    group.add_argument("--tls-key", type=Path, help="PEM private key of --tls-cert")
    group.add_argument(
        "--api-key-file",
        type=Path,
        help="one key a line, # for comments; clients must send one as 'authorization: Bearer KEY'",
    )
    group.add_argument(
        "--ready-file",
        type=Path,
        help="written as JSON, with the ports and the engine's plan, once requests are taken",
    )
    group.add_argument(
        "--metrics-port", type=int, help="Prometheus metrics alone, without TLS and keys"
    )
    group.add_argument("--queue-limit", type=int, default=16_384, help="requests waiting")
    group.add_argument(
        "--max-prompt-length", type=int, help="tokens; default: what the model was trained for"
    )
    group.add_argument("--max-message-bytes", type=int, default=4 * 1024 * 1024)
    group.add_argument(
        "--drain-seconds", type=float, default=30.0, help="for running requests at shutdown"
    )
