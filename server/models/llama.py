"""Llama 2, 3, 3.1, and those that kept its shape (SmolLM2, CLM, Mistral without its window)."""

from typing import Any

from server.models.spec import ModelSpec, RopeScaling


def read_config(name: str, config: dict[str, Any]) -> ModelSpec:
    """Hugging Face `LlamaForCausalLM` config -> spec. ValueError names a key that is missing."""
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise ValueError(f"{name}: Llama with biases (attention_bias, mlp_bias) is not supported")
    return read_common(name, "llama", config)


def read_common(name: str, family: str, config: dict[str, Any]) -> ModelSpec:
    """The keys that Llama and its relatives share."""
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(f"{name}: config.json lacks {', '.join(missing)}")
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ValueError(f"{name}: hidden_act {activation!r} is not supported; supported: silu")
    heads = config["num_attention_heads"]
    eos = config.get("eos_token_id")
    theta, scaling = _rope(name, config)
    return ModelSpec(
        name=name,
        family=family,
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // max(heads, 1),
        ffn=config["intermediate_size"],
        vocab=config["vocab_size"],
        max_positions=config.get("max_position_embeddings", 2048),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=config.get("tie_word_embeddings", False),
        bos_id=config.get("bos_token_id"),
        eos_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
    )


_REQUIRED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)


def _rope(name: str, config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    # transformers 5 writes rope_parameters; older ones rope_theta and rope_scaling.
    values = config.get("rope_parameters") or config.get("rope_scaling") or {}
    part = values.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if part != 1.0:
        raise ValueError(f"{name}: partial_rotary_factor {part} is not supported; supported: 1")
    theta = float(values.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = values.get("rope_type") or values.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"{name}: rope_type {kind!r} is not supported; supported: default, llama3")
    return theta, RopeScaling(
        factor=values["factor"],
        low_frequency_factor=values["low_freq_factor"],
        high_frequency_factor=values["high_freq_factor"],
        original_positions=values["original_max_position_embeddings"],
    )
