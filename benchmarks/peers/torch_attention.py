"""PyTorch's scaled_dot_product_attention, causal, timed. Reads one JSON object, writes one.

Run by `benchmarks.attention_forms` in an environment with torch.
"""

import json
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention


def main() -> None:
    """Seconds by the wall clock and of the processor, each of `repeats`."""
    asked = json.load(sys.stdin)
    kind = getattr(torch, asked["compute"])
    device = "cuda" if asked["platform"] == "gpu" else "cpu"
    heads = asked["kv_heads"] * asked["group"]

    def values(count: int) -> torch.Tensor:
        return torch.randn(1, count, asked["tokens"], asked["head"], dtype=kind, device=device)

    q = values(heads)
    # Theirs are repeated beforehand, which costs them nothing here.
    k, v = (values(asked["kv_heads"]).repeat_interleave(asked["group"], 1) for _ in range(2))

    def attend() -> None:
        scaled_dot_product_attention(q, k, v, is_causal=True)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        attend()
        times = []
        for _ in range(asked["repeats"]):
            started, busy = time.perf_counter(), time.process_time()
            attend()
            times.append((time.perf_counter() - started, time.process_time() - busy))
    print(json.dumps({"version": torch.__version__, "times": times}))


if __name__ == "__main__":
    main()
