"""How many bytes a model takes: the one definition, for the engine and for whoever plans. No JAX.

Weights: the matrices of the layers and the output head as their scheme stores them (the head is
stored even where it is tied: it is kept once as a table and once to multiply with); the table of
embeddings, positions and biases in the compute type; norms in float32.

Over `split` devices that share the model an axis that divides evenly is shared and any other is
kept whole on each (`server/engine/mesh.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from server.models.spec import ModelSpec
from server.quant.schemes import SCHEMES

NORM_BYTES = 4
SCALE_BYTES = 4
# (rows, tokens of each) of a prefill dispatch.
Dispatch = tuple[int, int]


@dataclass(frozen=True)
class Matrix:
    """A weight [outputs, inputs]. `shared`: the size of the axis that devices may share, whether
    that is the one of its outputs or (`by_inputs`) of its inputs.
    """

    name: str
    outputs: int
    inputs: int
    shared: int
    by_inputs: bool = False

    @property
    def weights(self) -> int:
        """How many numbers it has."""
        return self.outputs * self.inputs

    def bytes(self, scheme: str, compute_bytes: int, split: int) -> int:
        """On each of `split` devices. Inputs that they cannot share in whole blocks of the scheme
        stay together, and outputs are split in their place.
        """
        outputs, inputs = self.outputs, self.inputs
        block = SCHEMES[scheme].block or 1
        if not self.by_inputs:
            outputs = share(outputs, self.shared, split)
        elif self.shared % split == 0 and inputs // split % block:
            outputs = share(outputs, outputs, split)
        else:
            inputs = share(inputs, self.shared, split)
        if scheme == "none":
            return outputs * inputs * compute_bytes
        whole = _constants(scheme, self.outputs, self.inputs)
        return SCHEMES[scheme].bytes(outputs, inputs) - _constants(scheme, outputs, inputs) + whole


def _constants(scheme: str, outputs: int, inputs: int) -> int:
    """Bytes of what quantizes the scales themselves, which every device keeps whole."""
    kind = SCHEMES[scheme]
    if kind.group is None or kind.block is None:
        return 0
    scales = outputs * -(-inputs // kind.block)
    return SCALE_BYTES * (-(-scales // kind.group) + 1)


def share(size: int, axis: int, split: int) -> int:
    """What one of `split` devices has of `size`, where the axis of length `axis` may be shared."""
    return size // split if axis % split == 0 else size


def layer_matrices(model: ModelSpec) -> tuple[Matrix, ...]:
    """The matrices of one layer, fused as the decoder keeps them."""
    queries = model.heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    return (
        Matrix("qkv", queries + 2 * keys, model.hidden, model.kv_heads),
        Matrix("out", model.hidden, queries, model.kv_heads, by_inputs=True),
        Matrix("gate_up", model.mlp_parts * model.ffn, model.hidden, model.ffn),
        Matrix("down", model.hidden, model.ffn, model.ffn, by_inputs=True),
    )


def head_matrix(model: ModelSpec) -> Matrix:
    """From the last hidden state to logits."""
    return Matrix("head", model.vocab, model.hidden, model.vocab)


def head_scheme(scheme: str) -> str:
    """How the output head is stored under a scheme for the layers."""
    return SCHEMES[scheme].head


def matrix_bytes(model: ModelSpec, scheme: str, compute_bytes: int, split: int = 1) -> int:
    """The matrices that a step reads, per device: all layers and the head."""
    layer = sum(each.bytes(scheme, compute_bytes, split) for each in layer_matrices(model))
    head = head_matrix(model).bytes(head_scheme(scheme), compute_bytes, split)
    return model.layers * layer + head


def table_bytes(model: ModelSpec, compute_bytes: int, split: int = 1) -> int:
    """Embeddings and learned positions, per device: a step reads a row for each token."""
    rows = model.vocab
    if model.positions == "learned":
        rows += model.max_positions
    return rows * share(model.hidden, model.hidden, split) * compute_bytes


def vector_bytes(model: ModelSpec, compute_bytes: int, split: int = 1) -> int:
    """Norms and biases, per device."""
    norm = model.hidden * NORM_BYTES * (2 if model.norm == "layer" else 1)
    qkv = (model.heads + 2 * model.kv_heads) * model.head_dim
    layer = 2 * norm
    layer += share(qkv, model.kv_heads, split) * compute_bytes * model.qkv_bias
    layer += model.hidden * compute_bytes * model.out_bias
    inner = share(model.mlp_parts * model.ffn, model.ffn, split)
    layer += (inner + model.hidden) * compute_bytes * model.mlp_bias
    return model.layers * layer + norm * (1 + model.embedding_norm)


def weight_bytes(model: ModelSpec, scheme: str, compute_bytes: int, split: int = 1) -> int:
    """Everything that is kept of the model, per device."""
    return (
        matrix_bytes(model, scheme, compute_bytes, split)
        + table_bytes(model, compute_bytes, split)
        + vector_bytes(model, compute_bytes, split)
    )


def position_bytes(model: ModelSpec, quantized: bool, compute_bytes: int, split: int = 1) -> int:
    """Keys and values of one position of one slot, all layers, per device.

    int8 keeps a float32 scale for each vector beside its codes.
    """
    vector = model.head_dim + SCALE_BYTES if quantized else model.head_dim * compute_bytes
    return model.layers * 2 * share(model.kv_heads, model.kv_heads, split) * vector


# What a layer of a compiled program takes of a host's memory: its code, its scratch space when it
# runs, and what the compiler leaves in pieces in the allocator. 1.1 to 1.4 MiB for models of 22 to
# 30 layers in the forms for CPUs.
HOST_LAYER_BYTES = 5 * 2**18


def program_bytes(model: ModelSpec, programs: int) -> int:
    """Of programs compiled for a device that has the host's memory."""
    return programs * model.layers * HOST_LAYER_BYTES


SMALLEST_SPAN = 128
SMALLEST_CHUNK = 32
PREFILL_ROWS = 8  # plain forms of attention copy the cache of each row


def spans(cache_length: int) -> tuple[int, ...]:
    """How much of the cache a decode step may read: powers of two up to all of it."""
    found, span = [], SMALLEST_SPAN
    while span < cache_length:
        found.append(span)
        span *= 2
    return (*found, cache_length)


def prefill_sizes(
    slots: int,
    cache_length: int,
    chunk: int,
    most_rows: int = PREFILL_ROWS,
    row_tokens: int | None = None,
) -> tuple[Dispatch, ...]:
    """The sizes that a prefill dispatch is padded to, each of at most `chunk` tokens."""
    longest = min(chunk, cache_length, row_tokens or chunk)
    lengths, length = [], SMALLEST_CHUNK
    while length < longest:
        lengths.append(length)
        length *= 2
    lengths.append(longest)
    most = min(most_rows, slots)
    return tuple((min(chunk // size, most), size) for size in lengths)


def score_bytes(
    model: ModelSpec,
    dispatches: tuple[Dispatch, ...],
    cache_length: int,
    split: int = 1,
    keys: int | None = None,
) -> int:
    """Bytes of the float32 scores of the largest chunks, per device: against a whole cache and
    themselves, or against `keys` positions at a time.
    """
    tokens = max(rows * length for rows, length in dispatches)
    keys = keys or cache_length + dispatches[-1][1]
    return tokens * share(model.heads, model.kv_heads, split) * keys * 4


def temporary_bytes(
    model: ModelSpec,
    slots: int,
    cache_length: int,
    dispatches: tuple[Dispatch, ...],
    compute_bytes: int,
    split: int = 1,
    *,
    live_block: int | None = None,
    score_keys: int | None = None,
    scratch: int = 0,
) -> int:
    """Activations, scores and logits of the largest prefill or decode step, per device.

    An upper estimate before compiling; the compiled programs state theirs exactly. `live_block`:
    attention reads live positions only, after it laid a chunk out in blocks of so many tokens.
    `score_keys`: chunks attend to so many positions at a time; None for all. `scratch`: bytes that
    a product writes anew for each weight that it reads.
    """
    tokens = max(rows * length for rows, length in dispatches)
    # A key and a value of one layer.
    position = share(2 * model.kv_heads * model.head_dim * 4, model.kv_heads, split)
    inner = (model.mlp_parts + 1) * model.ffn  # what goes into the activation and comes out
    # Twice over for int8 on CPU, which holds two terms of every activation.
    wide = 2 * (share(inner, model.ffn, split) + 4 * model.hidden)
    # Sampling with every limit holds six arrays of logits: the compiled step says so.
    row = (wide + share(6 * model.vocab, model.vocab, split)) * 4
    prefill, decode = tokens * wide * max(compute_bytes, 4), slots * row
    if live_block is not None:
        # Short rows do not fill their blocks.
        laid = max(rows * -(-length // live_block) * live_block for rows, length in dispatches)
        return max(prefill + laid * position, decode)
    scores = 2 * score_bytes(model, dispatches, cache_length, split, score_keys)
    # The slots' old keys and values, and a copy of them in the order that the product wants.
    old = 2 * dispatches[0][0] * cache_length * position
    # One layer's cache, where a step reads less than all of it.
    several = spans(cache_length)
    part = 0 if len(several) == 1 else several[-2] * position
    anew = scratch * _largest_matrix(model, split)
    return max(prefill + scores + old, decode + slots * part) + anew


def _largest_matrix(model: ModelSpec, split: int) -> int:
    """Weights of the largest matrix of a layer, per device."""
    qkv, _, gate_up, _ = layer_matrices(model)
    return max(share(each.outputs, each.shared, split) for each in (qkv, gate_up)) * model.hidden


def largest_fitting(fits: Callable[[int], bool], granule: int = 1, most: int = 2**20) -> int:
    """The largest multiple of `granule` that fits, 0 when not even one does.

    `fits` is true up to some number and false beyond it.
    """
    low, high = 0, 1
    while high * granule < most and fits(high * granule):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * granule) else (low, middle)
    return low * granule
