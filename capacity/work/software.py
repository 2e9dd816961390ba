"""What different servers do with the same model on the same chip."""

from dataclasses import dataclass

from capacity.names import pick

# What a decode step's attention goes through: the live positions of the active slots, the whole
# cache of every slot, or of every slot a span that holds the longest live one.
LIVE, SPAN, WHOLE = "live", "span", "whole"


@dataclass(frozen=True)
class Software:
    """cache_reads: one of the above; live_on_cpu: on CPUs the live positions all the same.
    stores_tied_head: a tied head is kept beside the table of embeddings.
    quantizes_head: the output head is stored as the matrices of the layers are.
    expands_heads: keys and values are copied for every query head, and appended by copying.
    dequantizes: 4-bit weights are written out in 16 bits before a product of more than one row.
    pads_prompts: to the next power of two.
    chunks_prompts: a prompt is read in chunks, and only its last token goes through the head.
    int8_on_cpu: multiplies quantized weights in int8 on CPUs.
    skips_on_cpu: idle slots and padding cost no products on CPUs.
    """

    name: str
    text: str
    cache_reads: str = LIVE
    live_on_cpu: bool = False
    stores_tied_head: bool = False
    quantizes_head: bool = False
    expands_heads: bool = False
    dequantizes: bool = False
    pads_prompts: bool = False
    chunks_prompts: bool = False
    int8_on_cpu: bool = False
    skips_on_cpu: bool = False


_ALL = (
    Software(
        "loadstone",
        "this project's server",
        cache_reads=SPAN,
        live_on_cpu=True,
        stores_tied_head=True,
        quantizes_head=True,
        chunks_prompts=True,
        int8_on_cpu=True,
        skips_on_cpu=True,
    ),
    Software(
        "least",
        "only what has to be read and written, for bounds",
        int8_on_cpu=True,
        skips_on_cpu=True,
    ),
    Software(
        "jetstream",
        "jetstream-pytorch of spring 2024: reads the whole cache, one prompt a prefill",
        cache_reads=WHOLE,
        quantizes_head=True,
        pads_prompts=True,
    ),
    Software(
        "torch",
        "PyTorch, eager, Hugging Face transformers; bitsandbytes for quantized weights",
        expands_heads=True,
        dequantizes=True,
    ),
)
SOFTWARE = {each.name: each for each in _ALL}
LEAST = SOFTWARE["least"]


def find_software(name: str) -> Software:
    """By name. UsageError names the known ones."""
    return pick("software", name, SOFTWARE)
