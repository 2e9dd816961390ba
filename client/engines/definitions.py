"""What figures are made of: our definitions, and beside them those of the published pages.

Ours take seconds, tokens and bytes and say what they are in docs/offline.md. The pages' are kept to
print their columns as they did, and are named after what they really are.
"""


def throughput(batch: int, tokens: int, seconds: float) -> float:
    """Tokens/s of `batch` rows with `tokens` tokens each."""
    return batch * tokens / seconds


def ratio(new: float, old: float) -> float:
    """How many times as fast: seconds before over seconds now, or a rate now over one before."""
    return new / old


def error(estimated: float, measured: float) -> float:
    """Of an estimate, relative to the measurement."""
    return (estimated - measured) / measured


def page_ms_per_token(tokens_per_s: float) -> float:
    """bigcode-inference-benchmark's "msec/token": 1000 over the throughput of the whole batch. A
    row gets its next token after `batch` times as long."""
    return 1e3 / tokens_per_s


def page_latency_improvement(new: float, old: float) -> float:
    """bitsandbytes 0.45's "Latency Improvement": 1 + (1 - new / old)."""
    return 1 + (1 - new / old)


def page_microseconds_per_token(runtime_ms: float, tokens: int) -> float:
    """TorchCAP's "Throughput (token/sec)": microseconds per token."""
    return runtime_ms * 1e3 / tokens


def page_error(estimated: float, measured: float) -> float:
    """TorchCAP's error, relative to the estimate."""
    return (estimated - measured) / estimated


def tdp_energy(watts: float, runtime_ms: float, tokens: int) -> float:
    """Joules per token if the device drew its design power all the time: TorchCAP's "energy"."""
    return watts * runtime_ms / 1e3 / tokens
