"""Load generators of others, each started as its own users start it."""

import json
import os
import subprocess
from pathlib import Path

from benchmarks.client_kinds import Runner, Seen, Workload
from tests.peers.environments import tokenizer_folder

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 300.0


def _vllm(workload: Workload, requests: int, ports: dict[str, int], folder: Path) -> Seen:
    tokenizer = tokenizer_folder(folder / "tokenizer")
    _run(
        ".venv-vllm", "vllm", "bench", "serve", "--backend", "openai",
        "--base-url", f"http://127.0.0.1:{ports['http']}", "--endpoint", "/v1/completions",
        "--model", "truth", "--tokenizer", str(tokenizer), "--dataset-name", "random",
        "--random-input-len", "16", "--random-output-len", str(workload.tokens),
        "--num-prompts", str(requests), "--max-concurrency", str(workload.streams),
        "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99", "--ignore-eos",
        "--save-result", "--result-dir", str(folder), "--result-filename", "vllm.json",
        "--disable-tqdm",
    )  # fmt: skip
    found = json.loads((folder / "vllm.json").read_text())
    return Seen(
        found["p50_ttft_ms"], found["p99_ttft_ms"], found["p99_itl_ms"], found["output_throughput"]
    )


def _guidellm(workload: Workload, requests: int, ports: dict[str, int], folder: Path) -> Seen:
    tokenizer = tokenizer_folder(folder / "tokenizer")
    _run(
        ".venv-clients", "guidellm", "run", "--disable-progress",
        "--backend", f"kind=openai_http,target=http://127.0.0.1:{ports['http']},"
        "request_format=/v1/completions",
        "--profile", f"kind=concurrent,streams={workload.streams}",
        "--constraint", f"kind=max_requests,count={requests}",
        "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={workload.tokens}",
        "--output", f"kind=json,path={folder / 'guidellm.json'}",
    )  # fmt: skip
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    first = metrics["time_to_first_token_ms"]["successful"]["percentiles"]
    # Its ITL is the mean of each request: not the gaps themselves.
    rate = metrics["output_tokens_per_second"]["successful"]["mean"]
    return Seen(first["p50"], first["p99"], None, rate)


def _aiperf(workload: Workload, requests: int, ports: dict[str, int], folder: Path) -> Seen:
    tokenizer = tokenizer_folder(folder / "tokenizer")
    _run(
        ".venv-aiperf", "aiperf", "profile", "-m", "truth",
        "--url", f"http://127.0.0.1:{ports['http']}", "--endpoint-type", "completions",
        "--streaming", "--tokenizer", str(tokenizer), "--use-server-token-count",
        "--concurrency", str(workload.streams), "--request-count", str(requests),
        "--synthetic-input-tokens-mean", "16", "--output-tokens-mean", str(workload.tokens),
        "--ui", "none", "--artifact-dir", str(folder / "aiperf"),
    )  # fmt: skip
    found = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text())
    first = found["time_to_first_token"]
    return Seen(first["p50"], first["p99"], None, found["output_token_throughput"]["avg"])


def _run(environment: str, name: str, *arguments: str) -> None:
    program = ROOT / environment / "bin" / name
    if not program.exists():
        raise FileNotFoundError(f"there is no {environment}/bin/{name}")
    # Their tokenizer is a folder; told to be offline, AIPerf would not look at it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [str(program), *arguments],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=variables, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(
            f"{name} ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}"
        )


OTHERS: dict[str, Runner] = {
    "vllm bench serve": _vllm,
    "GuideLLM": _guidellm,
    "AIPerf": _aiperf,
}
