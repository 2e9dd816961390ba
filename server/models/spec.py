"""What a model is, in numbers. Imports no JAX: the capacity planner and the API read it too."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the slow rotary frequencies (Hugging Face `rope_type: llama3`)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


@dataclass(frozen=True)
class ModelSpec:
    """Sizes and switches of a decoder-only transformer.

    `heads` query heads share `kv_heads` key/value heads in equal groups; `ffn` is the inner width
    of the MLP; `max_positions` is the context the model was trained for, in tokens.

    norm: one of NORMS. A layer norm has a bias.
    activation: one of ACTIVATIONS. gated: activation(gate) * up, else activation(up).
    positions: one of POSITIONS. Learned ones end at `max_positions`: `position_limit`.
    unused_positions: rows of the checkpoint's table of positions before the first one.
    scaled_embedding, embedding_norm: embeddings are taken times sqrt(hidden), and normed.
    sliding_window: positions that a token attends to, itself included; None for all before it.
    """

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_positions: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    # Divides each rotary frequency; the form in which GGUF files carry Llama 3.1's scaling.
    rope_factors: tuple[float, ...] | None = None
    norm: str = "rms"
    norm_eps: float = 1e-5
    activation: str = "silu"
    gated: bool = True
    positions: str = "rope"
    unused_positions: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    scaled_embedding: bool = False
    embedding_norm: bool = False
    sliding_window: int | None = None
    tied: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in _SIZES:
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{self.name}: {field} is {value!r}; a whole number, at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: {self.heads} query heads do not divide into {self.kv_heads} "
                "key/value heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"{self.name}: head_dim {self.head_dim} is odd; RoPE needs pairs")
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"{self.name}: {field} {getattr(self, field)!r} is not supported; supported: "
                    f"{', '.join(allowed)}"
                )
        window = self.sliding_window
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ValueError(
                f"{self.name}: sliding_window is {window!r}; None or a whole number, at least 1"
            )

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Builds a spec from plain values; an unknown key is an error that names the known ones."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown model keys {unknown}; known: {sorted(known)}")
        values = dict(values)
        if isinstance(values.get("rope_scaling"), dict):
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        return cls(**values)

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    @property
    def position_limit(self) -> int | None:
        """How many positions there are: no request can go past them. None where any number is."""
        return self.max_positions if self.positions == "learned" else None

    @property
    def longest_cache(self) -> int | None:
        """The positions of a slot that attention can ever reach; None where there is no bound."""
        bounds = [n for n in (self.position_limit, self.sliding_window) if n is not None]
        return min(bounds, default=None)

    @property
    def mlp_parts(self) -> int:
        """Products of the MLP before its activation: gate and up, or up alone."""
        return 2 if self.gated else 1

    @property
    def parameters(self) -> int:
        """The number of weights, norms and biases included, tied ones once."""
        hidden, queries = self.hidden, self.heads * self.head_dim
        qkv = queries + 2 * self.kv_heads * self.head_dim
        norm = hidden * (2 if self.norm == "layer" else 1)
        layer = hidden * (qkv + queries + (self.mlp_parts + 1) * self.ffn) + 2 * norm
        layer += qkv * self.qkv_bias + hidden * self.out_bias
        layer += (self.mlp_parts * self.ffn + hidden) * self.mlp_bias
        ends = self.vocab * hidden * (1 if self.tied else 2) + norm + norm * self.embedding_norm
        if self.positions == "learned":
            ends += (self.max_positions + self.unused_positions) * hidden
        return self.layers * layer + ends


NORMS = ("rms", "layer")
ACTIVATIONS = ("silu", "gelu-tanh", "relu")
POSITIONS = ("rope", "learned", "alibi")
_SIZES = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_positions")
_CHOICES = {"norm": NORMS, "activation": ACTIVATIONS, "positions": POSITIONS}
