"""Our figures against the truth, on the same requests."""

import json
import math
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from client.errors import NotReadyError, UsageError
from client.load.crew import run_shares
from client.load.progress import Progress
from client.load.share import Plan, ShareResult, divide
from client.targets.exchange import OK
from client.targets.reading import CACHE
from client.targets.settings import TargetSettings, check_transport
from client.workloads.prompt import Prompt
from client.workloads.session import single

KINDS = ("openai", "openai-chat", "jetstream")
_END_SECONDS = 30.0


@dataclass(frozen=True)
class Trial:
    """`streams` at a time over a target of `kind`, `generations` of them one after another.

    `tokens` each, the first after `ttft` seconds, then one each `itl` seconds. The streams start
    spread over the time of one, unless all start `at_once`: then their tokens come in bursts in
    which the truth server itself is late to see a request.
    """

    kind: str
    streams: int = 512
    tokens: int = 64
    generations: int = 4
    ttft: float = 0.1
    itl: float = 0.025
    transport: str = "fast"
    workers: int = 1
    at_once: bool = False

    def __post_init__(self) -> None:
        rules = (
            ("--targets", self.kind in KINDS, ", ".join(KINDS), self.kind),
            ("--streams", self.streams >= 1, "1 or more", self.streams),
            ("--tokens", self.tokens >= 2, "2 or more, or there is no gap", self.tokens),
            ("--generations", self.generations >= 1, "1 or more", self.generations),
            ("--ttft-ms", 0 <= self.ttft < math.inf, "0 or more", self.ttft * 1e3),
            ("--itl-ms", 0 < self.itl < math.inf, "above 0", self.itl * 1e3),
            ("--workers", self.workers >= 1, "1 or more", self.workers),
        )
        for name, held, allowed, value in rules:
            if not held:
                raise UsageError(f"{name}: {allowed}; got {value}")
        check_transport(self.kind, self.transport)

    @property
    def seconds(self) -> float:
        """How long it takes a server and a client that keep up."""
        return self.generations * (self.ttft + (self.tokens - 1) * self.itl)

    @property
    def offered(self) -> float:
        """Tokens per second while every stream is past its first token."""
        return self.streams / self.itl


@dataclass(frozen=True)
class Floor:
    """What this client adds to the truth on this host. Errors: measured less true, ms.

    `read_lag`: from the write of a token to its time here. `cpu` is processor ms per 1,000
    tokens. `counts_agree`: every request brought as many tokens as were sent.
    """

    kind: str
    transport: str
    workers: int
    streams: int
    offered_tokens_per_s: float
    reached_tokens_per_s: float
    ttft_error_p50_ms: float
    ttft_error_p99_ms: float
    itl_error_p50_ms: float
    itl_error_p99_ms: float
    read_lag_p50_ms: float
    read_lag_p99_ms: float
    cpu_ms_per_1000_tokens: float
    cpu_share: float
    loop_lag_p99_ms: float
    counts_agree: bool


@contextmanager
def truth_server(*options: str, core: int | None = None) -> Iterator[dict[str, int]]:
    """The truth server in a process of its own; gives its ports."""
    command = [sys.executable, "-m", "client.calibration.truth_server", *options]
    if core is not None:
        command += ["--core", str(core)]
    # In a group of its own: Ctrl-C is for us, who then end it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise NotReadyError(
                    f"the truth server did not start (status {process.wait(_END_SECONDS)}); its "
                    "message is above"
                )
            yield json.loads(line)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def read_truth(port: int) -> dict[str, tuple[float, list[float]]]:
    """(received, sends) of each request by its prompt, seconds of `time.perf_counter()`.

    Raises `NotReadyError` when the server is gone.
    """
    try:
        # No proxy, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/truth", timeout=60) as page:
            lines = page.read().decode().splitlines()
    except OSError as error:
        raise NotReadyError(f"the truth server does not say what it did: {error}") from error
    return {prompt: (received, sends) for prompt, received, sends in map(json.loads, lines)}


def measure(trial: Trial, core: int | None = None) -> Floor:
    """Runs a trial. `core`: where the truth server runs; None: anywhere.

    Raises `NotReadyError` when nothing could be measured, KeyboardInterrupt when it was cut short.
    """
    options = ["--ttft-ms", str(trial.ttft * 1e3), "--itl-ms", str(trial.itl * 1e3)]
    with truth_server(*options, core=core) as ports:
        results = _run(trial, ports)
        if any(result.interrupted for result in results):
            raise KeyboardInterrupt
        return compare(trial, results, read_truth(ports["http"]))


def _run(trial: Trial, ports: dict[str, int]) -> list[ShareResult]:
    grpc = trial.kind == "jetstream"
    target = TargetSettings(
        kind=trial.kind,
        server="127.0.0.1",
        port=ports["grpc" if grpc else "http"],
        connections=1 if grpc else -(-trial.streams // trial.workers),
        transport=trial.transport,
        cache_dir=CACHE,
        request_timeout=60.0 + trial.seconds / trial.generations,
    )
    count = trial.streams * trial.generations
    prompts = [Prompt(str(n), f"request {n}", (n,), trial.tokens) for n in range(count)]
    gap = 0.0 if trial.at_once else (trial.ttft + trial.itl * trial.tokens) / trial.streams
    due = tuple(gap * number if number < trial.streams else None for number in range(count))
    plan = Plan(due, trial.streams)
    shares = divide(target, [single(prompt) for prompt in prompts], plan, trial.workers)
    with Progress("calibrating", count, False) as progress:
        return run_shares(shares, progress, _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compare(
    trial: Trial, results: Sequence[ShareResult], truth: dict[str, tuple[float, list[float]]]
) -> Floor:
    """Quantiles of what was measured less the same quantiles of the truth."""
    first, first_true, gaps, gaps_true, lags = [], [], [], [], []
    tokens, agree = 0, True
    for result in results:
        for index, exchange, answer in zip(
            result.indices, result.exchanges, result.answers, strict=True
        ):
            received, sends = truth.get(f"request {index}", (0.0, []))
            times = np.array([piece.time for piece in answer.pieces if piece.text])
            times -= result.started
            agree = agree and exchange.status == OK and len(times) == len(sends) == trial.tokens
            if exchange.sent is None or not len(times) or len(times) != len(sends):
                continue
            tokens += len(times)
            first.append(times[0] - exchange.sent)
            first_true.append(sends[0] - received)
            gaps.append(np.diff(times))
            gaps_true.append(np.diff(sends))
            lags.append(times - np.array(sends) + result.started)
    seconds = max(result.elapsed for result in results)
    cpu = sum(result.health.cpu_seconds for result in results)
    if not tokens:
        raise NotReadyError("no request of the calibration was answered; see the messages above")
    ttft50, ttft99 = _errors(np.array(first), np.array(first_true))
    itl50, itl99 = _errors(np.concatenate(gaps), np.concatenate(gaps_true))
    lag50, lag99 = np.percentile(np.concatenate(lags) * 1e3, [50, 99])
    return Floor(
        kind=trial.kind,
        transport=trial.transport,
        workers=len(results),
        streams=trial.streams,
        offered_tokens_per_s=trial.offered,
        reached_tokens_per_s=tokens / seconds,
        ttft_error_p50_ms=ttft50,
        ttft_error_p99_ms=ttft99,
        itl_error_p50_ms=itl50,
        itl_error_p99_ms=itl99,
        read_lag_p50_ms=float(lag50),
        read_lag_p99_ms=float(lag99),
        cpu_ms_per_1000_tokens=cpu / tokens * 1e6,
        cpu_share=max(result.health.cpu_share for result in results),
        loop_lag_p99_ms=max(result.health.loop_lag_p99_ms for result in results),
        counts_agree=agree,
    )


def _errors(measured: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """The error of the median and of the 99th percentile, ms."""
    quantiles = np.percentile(measured, [50, 99]) - np.percentile(true, [50, 99])
    return float(quantiles[0] * 1e3), float(quantiles[1] * 1e3)
