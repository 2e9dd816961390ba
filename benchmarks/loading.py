"""How long weights take to load and what memory that takes, from a checkpoint and from saved ones.

    python -m benchmarks.loading
    python -m benchmarks.loading --model DIR --kinds int8,nf4

Each load is a process of its own. `first` reads the checkpoint, quantizes and saves; `next` starts
from what was saved. `peak` is the most memory that the process held beyond what it held before it
loaded; `weights` is what stays. Seconds are of the load alone, without starting or compiling.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 2**20


def main() -> None:
    """Prints the table, or with --child loads once and prints what that took."""
    options = _parse()
    if options.child is not None:
        print(json.dumps(_load(options)))
        return
    from benchmarks.machine import describe_machine

    print(f"{describe_machine()}\n{options.model}\n")
    print("scheme         load    seconds  weights MiB  peak MiB  largest matrix MiB")
    for scheme in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first",) if scheme == "none" else ("first", "next"):
                command = [sys.executable, "-m", "benchmarks.loading", *sys.argv[1:]]
                done = subprocess.run(
                    [*command, "--kinds", scheme, "--child", folder],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                got = json.loads(done.stdout)
                print(
                    f"{scheme:<14} {name:<6} {got['seconds']:>8.2f} {got['weights'] / MIB:>12.0f} "
                    f"{got['peak'] / MIB:>9.0f} {got['largest'] / MIB:>19.0f}",
                    flush=True,
                )


def _parse() -> argparse.Namespace:
    from server.quant.schemes import SCHEMES

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="as for the server")
    parser.add_argument("--checkpoint", type=Path, help="as for the server")
    parser.add_argument("--kinds", default=",".join(SCHEMES), help="schemes (default: all)")
    parser.add_argument("--cache-dir", type=Path, help="keeps the compiled CPU kernel")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _load(options: argparse.Namespace) -> dict[str, float]:
    import jax

    from server.engine.config import EngineConfig
    from server.engine.open import choose_model, load_engine
    from server.kernels import build
    from tokenization import default_model_path

    choice = choose_model(options.model, options.checkpoint, "auto", default_model_path)
    config = EngineConfig(slots=1, cache_length=64, chunk=32, weights=options.kinds)
    build.load(options.cache_dir)
    jax.block_until_ready(jax.numpy.zeros(8))
    before, started = _resident(), time.monotonic()
    folder = None if options.kinds == "none" else Path(options.child)
    _, parameters = load_engine(
        choice, config, frozenset(), cache_dir=options.cache_dir, save_quantized=folder
    )
    jax.block_until_ready(parameters)
    seconds = time.monotonic() - started
    spec = choice.spec
    rows = max(spec.vocab, spec.mlp_parts * spec.ffn)
    return {
        "seconds": seconds,
        "weights": sum(leaf.nbytes for leaf in jax.tree.leaves(parameters)),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "largest": 4 * rows * spec.hidden,
    }


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
