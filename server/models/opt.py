"""OPT: learned positions, layer norms, biases and a plain ReLU MLP."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.tensors import TensorNames


def read(config: Config) -> dict[str, Any]:
    """An `OPTForCausalLM` config."""
    hidden, layers, heads, ffn, vocab = config.need(
        "hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "vocab_size"
    )
    config.only("do_layer_norm_before", True)
    config.only("_remove_final_layer_norm", False)
    config.only("word_embed_proj_dim", hidden)
    config.only("activation_function", "relu")
    config.only("enable_bias", True)
    config.only("layer_norm_elementwise_affine", True)
    return {
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": config.head_dim(hidden, heads),
        "ffn": ffn,
        "vocab": vocab,
        "max_positions": config.get("max_position_embeddings", 2048),
        "tied": config.get("tie_word_embeddings", True),
        **config.ends(),
    }


FAMILY = Family(
    "opt",
    "OPTForCausalLM",
    read,
    {
        "norm": "layer",
        "norm_eps": 1e-5,
        "activation": "relu",
        "gated": False,
        "positions": "learned",
        "unused_positions": 2,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
    },
    TensorNames(
        prefixes=("model.decoder.", "decoder."),
        attention_norm="self_attn_layer_norm",
        out="self_attn.out_proj",
        mlp_norm="final_layer_norm",
        gate_up=("fc1",),
        down="fc2",
        final_norm="final_layer_norm",
    ),
)
