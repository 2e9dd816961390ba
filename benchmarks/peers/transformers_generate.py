"""Hugging Face transformers' `generate`, greedy, on the default model. Runs in .venv-peers.

Reads {"model": file, "dtype": name, "batches": [..], "prompt": n, "new": n, "repeats": n} from
standard input; writes one JSON line a batch: {"batch": n, "seconds": [..]}.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Loads once, then times each batch after one warm-up."""
    asked = json.load(sys.stdin)
    path = Path(asked["model"])
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=getattr(torch, asked["dtype"])
    ).eval()
    for batch in asked["batches"]:
        ids = torch.randint(100, model.config.vocab_size, (batch, asked["prompt"]))
        seconds = [_generate(model, ids, asked["new"]) for _ in range(asked["repeats"] + 1)]
        print(json.dumps({"batch": batch, "seconds": seconds[1:]}), flush=True)


def _generate(model: torch.nn.Module, ids: torch.Tensor, new: int) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
        )
    assert out.shape[1] == ids.shape[1] + new, out.shape
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
