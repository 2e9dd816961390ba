"""How much of the in-process engine's tokens/s a client gets over gRPC, in one run.

`python -m benchmarks.served_share [--num-prompts 100] [--rounds 3]`. The same prompts, asking for
the same tokens with end-of-sequence ignored, all at once: once through scheduler and engine in this
process, once through `python -m server` and `python -m client.benchmark`. The client and the server
share this machine's cores, so the share charges the client's work too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.in_process import open_default
from benchmarks.machine import describe_machine
from benchmarks.serving import serving
from client.workloads.prompt import Prompt
from client.workloads.selection import select
from client.workloads.sharegpt import ShareGPTRules, prompts_from, read_sharegpt
from server.engine.engine import JaxEngine
from server.scheduler import EngineLoop, Event, Request
from tokenization import default_model_path, load_tokenizer

SAMPLE = Path("datasets/sample_sharegpt.json")
LIMIT_SECONDS = 1800.0
WARM_UP = 4  # requests served before the clock starts


def main() -> None:
    """Prints tokens/s of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-prompts", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--quantize", choices=("none", "int8"), default="int8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    inside, served = [], []
    for turn in range(options.rounds):
        inside.append(_in_process(options))
        served.append(_served(options))
        print(f"round {turn + 1}: {inside[-1]:.1f} in process, {served[-1]:.1f} served", flush=True)
    share = statistics.median(b / a for a, b in zip(inside, served, strict=True))
    print(describe_machine())
    print("| quantize | batch | prompts | in-process tokens/s | served tokens/s | share |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {options.quantize} | {options.batch_size} | {options.num_prompts} | "
        f"{statistics.median(inside):.1f} | {statistics.median(served):.1f} | {share:.1%} |"
    )


def _in_process(options: argparse.Namespace) -> float:
    tokenizer = load_tokenizer(default_model_path())
    rules = ShareGPTRules()
    chosen = select(
        read_sharegpt(SAMPLE),
        lambda conversations: prompts_from(conversations, rules, tokenizer),
        options.num_prompts,
        0,
        True,
    )
    engine = open_default(options.quantize, options.batch_size, 1024)  # as the server
    _replay(engine, chosen.prompts[:WARM_UP])
    return _replay(engine, chosen.prompts)


def _replay(engine: JaxEngine, prompts: Sequence[Prompt]) -> float:
    requests = [
        Request(number, prompt.token_ids, prompt.max_tokens, ignore_eos=True)
        for number, prompt in enumerate(prompts)
    ]
    ended = threading.Semaphore(0)
    made = 0

    def sink(events: list[Event]) -> None:
        nonlocal made
        for event in events:
            made += len(event.tokens)
            if event.end is not None:
                ended.release()

    loop = EngineLoop(engine, sink)
    loop.start()
    started = time.perf_counter()
    for request in requests:
        loop.submit(request)
    for _ in requests:
        if not ended.acquire(timeout=LIMIT_SECONDS):
            raise SystemExit(f"the engine did not finish within {LIMIT_SECONDS:.0f} s")
    seconds = time.perf_counter() - started
    loop.stop()
    return made / seconds


def _served(options: argparse.Namespace) -> float:
    server = ["--quantize", options.quantize, "--batch-size", str(options.batch_size)]
    with tempfile.TemporaryDirectory() as folder, serving(server) as port:
        command = [sys.executable, "-m", "client.benchmark", "--port", str(port), "--ignore-eos"]
        command += ["--num-prompts", str(options.num_prompts), "--result-dir", folder]
        subprocess.run([*command, "--disable-tqdm"], check=True, stdout=subprocess.DEVNULL)
        (record,) = Path(folder).glob("*.json")
        return json.loads(record.read_text())["output_throughput"]


if __name__ == "__main__":
    main()
