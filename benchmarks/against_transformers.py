"""Tokens/s of the engine against Hugging Face `generate` on this CPU, in one run.

`make benchmark-peers` or `python -m benchmarks.against_transformers --peer PYTHON`. Both sides read
random prompts of the same length and make the same number of tokens, greedily, with
end-of-sequence ignored; prefill and the choice of tokens are inside the clock, loading and
compiling are not. Rounds alternate between the engines, so that a change of the machine's speed
meets both.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections import defaultdict

from benchmarks.in_process import open_default, prefill_all
from benchmarks.machine import describe_machine
from server.engine.engine import JaxEngine
from tokenization import default_model_path

PEERS = ("float32", "bfloat16")
OURS = ("none", "int8")
Key = tuple[str, str, int]  # whose, how, batch


def main() -> None:
    """Prints the table of medians, ratios and spreads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="python of the environment with transformers")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--new", type=int, default=100, help="tokens")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[Key, list[float]] = defaultdict(list)
    for turn in range(options.rounds):
        for dtype in PEERS:
            for batch, rate in _run_peer(options, dtype):
                rates["transformers", dtype, batch].append(rate)
        for quantize in OURS:
            for batch in options.batches:
                rates["ours", quantize, batch].append(_run_ours(options, quantize, batch))
        print(f"round {turn + 1}/{options.rounds} done", flush=True)
    _print(options, rates)


def _run_peer(options: argparse.Namespace, dtype: str) -> list[tuple[int, float]]:
    asked = {
        "model": str(default_model_path()),
        "dtype": dtype,
        "batches": options.batches,
        "prompt": options.prompt,
        "new": options.new,
        "repeats": 1,
    }
    done = subprocess.run(
        [options.peer, "benchmarks/peers/transformers_generate.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"transformers failed:\n{done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [(row["batch"], row["batch"] * options.new / row["seconds"][0]) for row in rows]


def _run_ours(options: argparse.Namespace, quantize: str, batch: int) -> float:
    length = options.prompt + options.new
    engine = open_default(quantize, batch, cache_length=-(-length // 128) * 128)
    _generate(engine, options.prompt, options.new)  # warm-up, as theirs
    return batch * options.new / _generate(engine, options.prompt, options.new)


def _generate(engine: JaxEngine, prompt: int, new: int) -> float:
    """Seconds from the first prefill to the last token, one dispatch always under way."""
    slots = engine.shape.slots
    started = time.perf_counter()
    pending = prefill_all(engine, prompt, new)
    made = 0
    for _ in range(new - 1):
        pending.append(engine.decode())
        while len(pending) > 1:
            made += len(pending.pop(0).tokens())
    made += len(pending.pop().tokens())
    seconds = time.perf_counter() - started
    assert made == slots * new, (made, slots * new)
    return seconds


def _print(options: argparse.Namespace, rates: dict[Key, list[float]]) -> None:
    print(describe_machine())
    print(
        f"prompt {options.prompt}, new tokens {options.new}, {options.rounds} rounds; tokens/s "
        "median (lowest-highest), prefill included"
    )
    head = [f"transformers {name}" for name in PEERS] + [f"ours {name}" for name in OURS]
    ratios = [f"{name} / best of theirs" for name in OURS]
    print("| batch | " + " | ".join(head + ratios) + " |")
    print("|---" * (1 + len(head) + len(ratios)) + "|")
    for batch in options.batches:
        theirs = [rates["transformers", name, batch] for name in PEERS]
        ours = [rates["ours", name, batch] for name in OURS]
        best = max(map(statistics.median, theirs))
        cells = [_cell(values) for values in theirs + ours]
        cells += [f"{statistics.median(values) / best:.2f}x" for values in ours]
        print(f"| {batch} | " + " | ".join(cells) + " |")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


if __name__ == "__main__":
    main()
