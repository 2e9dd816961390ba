"""A forward without a KV cache, kernel by kernel.

In eager PyTorch every elementwise operation is a kernel of its own that reads and writes memory.
The counts follow the operations in transformers 4.48's modelling code (LlamaForCausalLM,
OPTForCausalLM). A compiler that fuses them leaves the products, attention and the loss.
"""

from dataclasses import dataclass, replace

from capacity.work.part import CACHE, ELEMENTWISE, WEIGHTS, Part, Work
from capacity.work.setting import COMPUTES
from server.models import sizes
from server.models.spec import ModelSpec
from server.quant.schemes import SCHEMES

FLOAT = 4
# log_softmax reads its input three times (maximum, sum, result) and writes once.
_SOFTMAX_PASSES = 4


@dataclass(frozen=True)
class Forward:
    """`batch` sequences of `tokens` tokens through a model.

    loss: with the loss over all of them; otherwise logits of all, in float32. mlp_split: devices
    that share the MLP. windowed: attention skips what a sliding window hides (flash attention); as
    measured with an explicit mask it computes the whole square. fused: elementwise operations are
    part of the products beside them.
    """

    model: ModelSpec
    batch: int
    tokens: int
    compute: str = "bf16"
    weights: str = "none"
    loss: bool = True
    mlp_split: int = 1
    windowed: bool = False
    fused: bool = False

    @property
    def count(self) -> int:
        """All tokens."""
        return self.batch * self.tokens

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return COMPUTES[self.compute]

    @property
    def loss_width(self) -> int:
        """Bytes of the type that the loss is taken in: Llama's is float32, OPT's its own."""
        return self.width if self.model.positions == "learned" else FLOAT


def forward_work(forward: Forward) -> Work:
    """All kernels of a forward."""
    model, split = forward.model, forward.mlp_split
    layer = _attention(forward) + _mlp(forward)
    parts = [replace(part, times=model.layers) for part in layer] + _norm(forward)
    if forward.fused:
        parts = [part for part in parts if part.kind != ELEMENTWISE]
    parts += _head(forward)
    shared = split > 1
    return Work(
        tuple(parts),
        reduced=float(model.layers * forward.count * model.hidden * forward.width * shared),
        collectives=model.layers * shared,
        sharers=split,
        layers=model.layers,
        sequences=forward.batch,
    )


def least_work(forward: Forward) -> Work:
    """The arithmetic of products and attention alone: what no implementation can avoid."""
    whole = forward_work(forward)
    kept = [part for part in whole.parts if part.kind != ELEMENTWISE]
    return Work(tuple(replace(part, bytes=0.0, quantized=False) for part in kept))


def forward_memory(forward: Forward, kept: bool = False) -> float:
    """Bytes of a device at the peak, which is the loss: weights, and copies of the logits.

    Two copies in the loss's type; `kept`: the logits are returned too, and take half a copy more.
    """
    model = forward.model
    mlp = sum(each.weights for each in sizes.layer_matrices(model) if each.shared == model.ffn)
    weights = model.parameters - model.layers * mlp * (1 - 1 / forward.mlp_split)
    logits = forward.count * model.vocab * forward.loss_width
    return forward.width * weights + logits * (2.5 if kept else 2.0)


def _attention(forward: Forward) -> list[Part]:
    model, count, width = forward.model, forward.count, forward.width
    queries = model.heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    parts = _norm(forward)
    parts += [_linear(forward, model.hidden, size) for size in (queries, keys, keys)]
    if model.positions == "rope":
        parts += [_rotate(count * size, width) for size in (queries, keys)]
    copied = [queries, keys, keys]
    if model.kv_heads < model.heads:
        # Keys and values repeated for every query head.
        parts += [_move(count * width * (keys + queries))] * 2
        copied = [queries]
    # Made contiguous for the kernel, and its result for the next product.
    parts += [_move(2 * count * width * size) for size in (*copied, queries)]
    seen = forward.tokens
    if forward.windowed:
        # A token sees half of the square, or the window before it.
        seen = min(seen // 2, model.sliding_window or seen)
    flops = 4.0 * count * seen * queries
    # Flash attention is in 16 bits whatever the rest is in.
    arithmetic = "bf16" if forward.windowed else forward.compute
    parts.append(Part(CACHE, 4.0 * width * count * queries, flops, arithmetic))
    return [*parts, _linear(forward, queries, model.hidden), _add(forward)]


def _mlp(forward: Forward) -> list[Part]:
    model, inner = forward.model, forward.model.ffn // forward.mlp_split
    size = forward.count * inner * forward.width
    parts = _norm(forward)
    parts += [_linear(forward, model.hidden, inner)] * model.mlp_parts
    parts.append(_move(2 * size))
    if model.gated:
        parts.append(_move(3 * size))
    return [*parts, _linear(forward, inner, model.hidden), _add(forward)]


def _head(forward: Forward) -> list[Part]:
    model, width = forward.model, forward.width
    parts = [_linear(forward, model.hidden, model.vocab, head=True)]
    logits = forward.count * model.vocab
    if forward.loss_width != width:
        parts.append(_move(logits * (width + FLOAT)))
    if not forward.loss:
        return parts
    # The shifted logits are copied, then log_softmax.
    return [*parts, *(_move(logits * forward.loss_width * n) for n in (2, _SOFTMAX_PASSES))]


def _norm(forward: Forward) -> list[Part]:
    size, width = forward.count * forward.model.hidden, forward.width
    if forward.model.norm == "layer":
        return [_move(2 * size * width)]
    # To float32; square; mean; times the inverse; back; times the weight.
    passes = (width + FLOAT, 2 * FLOAT, FLOAT, 2 * FLOAT, FLOAT + width, 2 * width)
    return [_move(size * each) for each in passes]


def _rotate(elements: int, width: int) -> Part:
    """x * cos; -x of one half; the halves joined; times sin; added: 2 + 1 + 2 + 2 + 3 passes."""
    return _move(10 * elements * width)


def _add(forward: Forward) -> Part:
    """The residual: two read, one written."""
    return _move(3 * forward.count * forward.model.hidden * forward.width)


def _linear(forward: Forward, inputs: int, outputs: int, head: bool = False) -> Part:
    count, width = forward.count, forward.width
    scheme = SCHEMES[forward.weights]
    if head and scheme.quantized:
        scheme = SCHEMES["none"]
    stored = width * inputs * outputs
    if scheme.name != "none":
        # Read as stored; where codes are not what is multiplied, written out and read again.
        anew = scheme.quantized and scheme.products is None
        stored = scheme.bytes(outputs, inputs) + 2 * stored * anew
    return Part(
        WEIGHTS,
        float(width * count * (inputs + outputs) + stored),
        2.0 * count * inputs * outputs,
        scheme.products or forward.compute,
        quantized=scheme.quantized,
    )


def _move(size: float) -> Part:
    return Part(ELEMENTWISE, float(size))
