"""A decode step and a prefill of a served model."""

from collections.abc import Sequence

import numpy as np

from capacity.work.part import CACHE, WEIGHTS, Amount, Part, Work
from capacity.work.setting import Setting
from capacity.work.software import LEAST, SPAN
from server.models import sizes
from server.models.spec import ModelSpec
from server.quant.schemes import SCHEMES

# On CPUs our kernel takes exact activations as two int8 terms, and the table of nf4, too: products
# of int8 that stand for one (server/kernels/cpu_codes.c).
_CPU_TERMS = {"int8": 2, "int8-dynamic": 1, "int8-decomp": 1, "int4": 2, "nf4": 3, "nf4-dq": 3}
# Four bits: written out before a product of many rows where software does that.
_FOUR_BIT = ("nf4", "nf4-dq", "int4")
# Written, read again and appended to by copying, for each key and value of every query head.
_EXPANDED_PASSES = 3
_SHORTEST_PADDED = 16


def matrix_weights(model: ModelSpec) -> tuple[int, int]:
    """Numbers in the matrices of all layers, and in the output head."""
    layer = sum(each.weights for each in sizes.layer_matrices(model))
    return model.layers * layer, sizes.head_matrix(model).weights


def decode_work(setting: Setting, active: Amount, read: Amount) -> Work:
    """A step in which `active` sequences make a token each and attention goes through `read`
    positions (`capacity.work.reading`).

    Both over the whole slice; arrays give work for each of several steps. All slots are computed,
    whether active or not, but where idle ones are skipped.
    """
    model, replicas = setting.model, setting.replicas
    rows = (active if setting.skips_idle else setting.slots) / replicas
    positions = read / replicas
    flops = 4.0 * positions * _heads(setting) * model.head_dim * model.layers
    attention = Part(
        CACHE,
        _cache_traffic(setting, positions),
        flops,
        setting.compute,
        quantized=setting.cache != "none",
    )
    return Work(
        parts=(*_products(setting, rows, rows), attention),
        reduced=_reduced(setting, rows),
        collectives=_collectives(setting),
        sharers=setting.split,
        layers=model.layers,
        sequences=active,
    )


def prefill_work(setting: Setting, lengths: Amount, rows: int = 1) -> Work:
    """A prompt of each of these lengths, read by itself, `rows` alike at a time.

    Sharding by batch leaves it to one chip while the others wait.
    """
    model, software = setting.model, setting.software
    prompt = np.asarray(lengths, dtype=np.float64)
    if software.pads_prompts:
        prompt = 2.0 ** np.ceil(np.log2(np.maximum(prompt, _SHORTEST_PADDED)))
    tokens = prompt * rows
    chunked = software.chunks_prompts
    dispatches = np.ceil(tokens / setting.chunk) if chunked else np.ones_like(tokens)
    # Half of the square is masked; what is beyond the window is not seen.
    kept = setting.kept_positions
    seen, read = tokens * np.minimum(prompt, kept) / 2, tokens
    if chunked and setting.cache_reads == SPAN:
        # Chunks after the first go through all that a slot keeps.
        first = np.minimum(prompt, setting.chunk)
        seen = rows * (first * np.minimum(first, kept) / 2 + (prompt - first) * kept)
        read = tokens + (dispatches - 1) * kept
    flops = 4.0 * seen * _heads(setting) * model.head_dim * model.layers
    attention = Part(CACHE, read * setting.position_bytes, flops, setting.compute)
    return Work(
        parts=(*_products(setting, tokens, rows if chunked else tokens, dispatches), attention),
        reduced=_reduced(setting, tokens),
        collectives=_collectives(setting),
        sharers=setting.split,
        layers=model.layers,
    )


def dispatch_work(
    setting: Setting, rows: int, tokens: int, chunks: Sequence[tuple[int, int]]
) -> Work:
    """A prefill dispatch of our server: padded to `rows` of `tokens` tokens each, with a chunk in
    some of the rows. chunks: (prompt tokens before it, its own).
    """
    read = float(sum(own for _, own in chunks) if setting.skips_idle else rows * tokens)
    ends = len(chunks) if setting.skips_idle else rows
    return Work(
        parts=(*_products(setting, read, ends), chunk_attention(setting, rows, tokens, chunks)),
        reduced=_reduced(setting, read),
        collectives=_collectives(setting),
        sharers=setting.split,
        layers=setting.model.layers,
    )


def chunk_attention(
    setting: Setting, rows: int, tokens: int, chunks: Sequence[tuple[int, int]]
) -> Part:
    """Attention of chunks of prompts, as in `dispatch_work`."""
    model, kept = setting.model, setting.kept_positions
    if setting.cache_reads == SPAN and any(before for before, _ in chunks):
        # The program for chunks that have something before them goes through the whole of slots.
        seen, read = float(rows * tokens * kept), float(rows * (tokens + kept))
    else:
        # Half of a chunk's own square is masked; before it is what the slot still holds.
        seen = float(sum(size * min(before + size / 2, kept) for before, size in chunks))
        read = float(sum(size + min(before, kept) for before, size in chunks))
    flops = 4.0 * seen * _heads(setting) * model.head_dim * model.layers
    return Part(CACHE, read * setting.position_bytes, flops, setting.compute)


def _products(
    setting: Setting, rows: Amount, head_rows: Amount, times: Amount = 1.0
) -> tuple[Part, Part]:
    """The matrices of the layers and the head, read `times` times for so many rows in all."""
    model, software = setting.model, setting.software
    layers, head = matrix_weights(model)
    held = sum(
        each.bytes(setting.weights, setting.compute_bytes, setting.split)
        for each in sizes.layer_matrices(model)
    )
    head_scheme = sizes.head_scheme(setting.weights) if software.quantizes_head else "none"
    head_held = sizes.head_matrix(model).bytes(head_scheme, setting.compute_bytes, setting.split)
    return (
        _product(setting, layers, model.layers * held, setting.weights, rows, times),
        _product(setting, head, head_held, head_scheme, head_rows, times),
    )


def _product(
    setting: Setting, weights: int, held: int, scheme: str, rows: Amount, times: Amount
) -> Part:
    moved = held * times
    if setting.software.dequantizes and scheme in _FOUR_BIT:
        # Written in the compute type, and read by the product.
        written = 2.0 * weights / setting.split * setting.compute_bytes
        moved = moved + np.where(np.asarray(rows) > 1, written, 0.0)
    arithmetic, terms = _arithmetic(setting, scheme)
    return Part(
        WEIGHTS,
        moved,
        2.0 * weights / setting.split * rows * terms,
        arithmetic,
        quantized=SCHEMES[scheme].quantized,
    )


def _arithmetic(setting: Setting, scheme: str) -> tuple[str, int]:
    """The type of a product's inputs, and how many such products stand for one."""
    on_cpu = setting.slice.chip.kind == "cpu" and setting.software.int8_on_cpu
    if on_cpu and scheme in _CPU_TERMS:
        return "int8", 1 if setting.software is LEAST else _CPU_TERMS[scheme]
    return SCHEMES[scheme].products or setting.compute, 1


def _cache_traffic(setting: Setting, positions: Amount) -> Amount:
    """Bytes of keys and values that attention moves for so many positions, per chip."""
    model = setting.model
    if not setting.software.expands_heads:
        return positions * setting.position_bytes
    expanded = 2 * model.heads * model.head_dim * setting.compute_bytes * model.layers
    return positions * expanded * _EXPANDED_PASSES / setting.split


def _heads(setting: Setting) -> int:
    """Query heads of a chip."""
    return sizes.share(setting.model.heads, setting.model.kv_heads, setting.split)


def _collectives(setting: Setting) -> int:
    """Attention and MLP each end in a sum over the chips that share the weights."""
    return 2 * setting.model.layers if setting.split > 1 else 0


def _reduced(setting: Setting, rows: Amount) -> Amount:
    if setting.split == 1:
        return 0.0
    return 2.0 * setting.model.layers * rows * setting.model.hidden * setting.compute_bytes
