"""StarCoder2: Llama's rotary attention with layer norms, biases and a plain GELU MLP."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.llama import read_common
from server.models.tensors import TensorNames


def read(config: Config) -> dict[str, Any]:
    """A `Starcoder2ForCausalLM` config."""
    config.only("use_bias", True)
    config.only("hidden_act", "gelu_pytorch_tanh")
    return {
        **read_common(config),
        "norm_eps": config.get("norm_epsilon", 1e-5),
        "sliding_window": config.get("sliding_window"),
        "tied": config.get("tie_word_embeddings", True),
    }


FAMILY = Family(
    "starcoder2",
    "Starcoder2ForCausalLM",
    read,
    {
        "norm": "layer",
        "activation": "gelu-tanh",
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
    },
    TensorNames(gate_up=("mlp.c_fc",), down="mlp.c_proj"),
)
