"""The published pages as settings: their own sizes, and small ones of the same families.

Sources: docs/offline.md.
"""

from typing import Any

from client.engines.ask import FORWARD, GENERATE, LOSS
from client.engines.models import EMBEDDED

PAGE, SMALL = "page", "small"
SIZES = (PAGE, SMALL)
GENERATING, DECODING, PASSING, SCORING = (
    "generate",
    "decode-step",
    "uncached-forward",
    "forward-loss",
)

# Token counts of eight short sentences, as the page's own have.
_EIGHT_PROMPTS = (7, 4, 3, 3, 6, 8, 9, 5)
_TO_THE_END = tuple(range(128, 4097, 128))

# What a page measured, and below what changes for a machine without an accelerator.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    GENERATING: {
        PAGE: {
            "task": GENERATE,
            "models": ("bloom-1.3b",),
            "batch_sizes": (1, 2, 4, 8, 16, 32, 64, *_TO_THE_END),
            "transformers_kinds": ("float32", "bfloat16", "int8"),
            "prompts": _EIGHT_PROMPTS,
            "new_tokens": 100,
            "warmups": 1,
            "timed": 5,
        },
        SMALL: {
            "models": ("bloom-small",),
            "batch_sizes": (1, 2, 4, 8, 16, 32, 64),
        },
    },
    DECODING: {
        PAGE: {
            "task": GENERATE,
            "models": ("llama3.1-8b",),
            "batch_sizes": (1, 8, 32),
            "quantize": ("none", "nf4", "nf4-dq", "int8", "int8-dynamic", "int8-decomp"),
            "transformers_kinds": ("bfloat16", "nf4", "nf4-dq", "int8", "int8-decomp"),
            "prompts": (64,),
            "new_tokens": 100,
            "warmups": 1,
            "timed": 10,
            "min_seconds": 10.0,
        },
        SMALL: {
            "models": (EMBEDDED,),
            "transformers_kinds": ("float32", "bfloat16"),
            "timed": 3,
            "min_seconds": 0.0,
        },
    },
    PASSING: {
        PAGE: {
            "task": FORWARD,
            "models": ("starcoder2-7b",),
            "batch_sizes": (2, 4, 8),
            "contexts": (4096, 8192, 16384, 18000),
            "quantize": ("none", "int8-decomp", "nf4"),
            "attention": ("reference", "flash"),
            "transformers_kinds": ("float32", "bfloat16", "int8-decomp", "nf4"),
            "transformers_attention": ("sdpa", "flash_attention_2"),
            "new_tokens": 16,
            "warmups": 2,
            "timed": 16,
        },
        SMALL: {
            "models": ("starcoder2-small",),
            "batch_sizes": (1, 2),
            "contexts": (512, 1024, 2048),
            "quantize": ("none",),
            "transformers_kinds": ("float32",),
            "transformers_attention": ("eager", "sdpa"),
            "new_tokens": 2,
            "warmups": 1,
            "timed": 2,
        },
    },
    SCORING: {
        PAGE: {
            "task": LOSS,
            "models": ("opt-1.3b", "opt-6.7b", "clm-60m", "clm-200m", "clm-400m", "clm-1.1b"),
            "batch_sizes": (16,),
            "contexts": (1024,),
            "quantize": ("none",),
            "transformers_kinds": ("float16",),
            "warmups": 1,
            "timed": 5,
        },
        SMALL: {
            "models": ("opt-small", "clm-60m"),
            "batch_sizes": (4,),
            "contexts": (512,),
            "transformers_kinds": ("float32", "bfloat16"),
            "timed": 3,
        },
    },
}


def preset_values(name: str, size: str) -> dict[str, Any]:
    """Fields of `Measuring`, without those a user gives. KeyError for a name that is not known."""
    sizes = PRESETS[name]
    return {"preset": name, **sizes[PAGE], **(sizes[SMALL] if size == SMALL else {})}
