"""What checkpoints call a model's tensors, and the shapes that these have there."""

from dataclasses import dataclass

from server.models.spec import ModelSpec


@dataclass(frozen=True)
class TensorNames:
    """One family's names in Hugging Face's checkpoints, without their `.weight` and `.bias`.

    The defaults are Llama's. `prefixes` stand before all names but the head's: a checkpoint uses
    one of them. `qkv` names queries, keys and values, or one tensor that holds these three head by
    head. `gate_up` names both halves of a gated MLP, or the one product of a plain one. Norm
    weights are used plus `norm_offset`.
    """

    prefixes: tuple[str, ...] = ("model.",)
    embedding: str = "embed_tokens"
    positions: str = "embed_positions"
    embedding_norm: str = "embed_norm"
    layer: str = "layers.{}."
    attention_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    final_norm: str = "norm"
    head: str = "lm_head"
    norm_offset: float = 0.0

    def shapes(self, spec: ModelSpec, prefix: str | None = None) -> dict[str, tuple[int, ...]]:
        """Every tensor of a checkpoint by its full name. A tied head is not one of them."""
        prefix = self.prefixes[0] if prefix is None else prefix
        found: dict[str, tuple[int, ...]] = {}
        hidden, norm_bias = spec.hidden, spec.norm == "layer"

        def add(name: str, *shape: int, bias: bool = False) -> None:
            found[f"{name}.weight"] = shape
            if bias:
                found[f"{name}.bias"] = shape[:1]

        add(prefix + self.embedding, spec.vocab, hidden)
        if spec.positions == "learned":
            add(prefix + self.positions, spec.max_positions + spec.unused_positions, hidden)
        if spec.embedding_norm:
            add(prefix + self.embedding_norm, hidden, bias=norm_bias)
        for index in range(spec.layers):
            layer = prefix + self.layer.format(index)
            add(layer + self.attention_norm, hidden, bias=norm_bias)
            for name, width in zip(self.qkv, self.qkv_widths(spec), strict=True):
                add(layer + name, width, hidden, bias=spec.qkv_bias)
            add(layer + self.out, hidden, spec.heads * spec.head_dim, bias=spec.out_bias)
            add(layer + self.mlp_norm, hidden, bias=norm_bias)
            for name in self.gate_up:
                add(layer + name, spec.ffn, hidden, bias=spec.mlp_bias)
            add(layer + self.down, hidden, spec.ffn, bias=spec.mlp_bias)
        add(prefix + self.final_norm, hidden, bias=norm_bias)
        if not spec.tied:
            add(self.head, spec.vocab, hidden)
        return found

    def qkv_widths(self, spec: ModelSpec) -> tuple[int, ...]:
        """Outputs of each tensor of `qkv`."""
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        return (queries + 2 * keys,) if len(self.qkv) == 1 else (queries, keys, keys)
