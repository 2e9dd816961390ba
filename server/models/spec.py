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
    of the gated MLP; `max_positions` is the context the model was trained for, in tokens.
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
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    tied: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
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
    def parameters(self) -> int:
        """The number of weights, norms and biases included, tied ones once."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        layer = self.hidden * (qkv + self.heads * self.head_dim + 3 * self.ffn + 2)
        layer += qkv if self.qkv_bias else 0
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.hidden
