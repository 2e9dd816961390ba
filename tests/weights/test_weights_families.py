"""Checkpoints of each family: what is stored otherwise, what is refused, what is broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from server.engine import mesh as meshes
from server.models.families import ARCHITECTURES, FAMILIES
from server.models.spec import ModelSpec
from server.quant.dense import DenseForm
from server.quant.weight import Forms
from server.weights.dummy import dummy_parameters, dummy_shapes
from server.weights.load import load_parameters
from server.weights.safetensors import SafetensorsSource
from server.weights.source import CheckpointError
from tests.models.tiny import load, random_tensors, tiny_spec

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
# A layer's weight and its bias in each new family, and a tensor that others have.
TENSORS = {
    "gemma": ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"),
    "starcoder2": ("model.layers.1.mlp.c_fc.bias", "model.layers.0.mlp.gate_proj.weight"),
    "opt": ("model.decoder.embed_positions.weight", "model.decoder.project_in.weight"),
    "bloom": (
        "transformer.h.1.self_attention.query_key_value.weight",
        "transformer.h.0.self_attention.q_proj.weight",
    ),
    "mistral": ("model.layers.1.input_layernorm.weight", "model.norm.bias"),
}


@pytest.fixture
def change(tmp_path: Path) -> Callable[..., Path]:
    """Copies a family's checkpoint: `config` changes keys, `edit` the tensors."""

    def change(
        name: str, config: dict | None = None, edit: Callable[[dict], None] | None = None
    ) -> Path:
        shutil.copytree(FIXTURES / name, tmp_path, dirs_exist_ok=True)
        values = json.loads((tmp_path / "config.json").read_text()) | (config or {})
        (tmp_path / "config.json").write_text(json.dumps(values))
        if edit is not None:
            path = tmp_path / "model.safetensors"
            tensors = load_file(path)
            edit(tensors)
            save_file(tensors, path)
        return tmp_path

    return change


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor_is_named(change: Callable, name: str) -> None:
    tensor, _ = TENSORS[name]
    folder = change(name, edit=lambda tensors: tensors.pop(tensor))
    with pytest.raises(CheckpointError, match=rf"tensor {tensor} is missing, expected \(\d+,"):
        load(SafetensorsSource(folder))


@pytest.mark.parametrize("name", TENSORS)
def test_an_extra_tensor_is_named(change: Callable, name: str) -> None:
    _, extra = TENSORS[name]
    folder = change(name, edit=lambda tensors: tensors.update({extra: np.ones(4, np.float32)}))
    with pytest.raises(CheckpointError, match=rf"1 tensors do not belong to this model: {extra}"):
        load(SafetensorsSource(folder))


@pytest.mark.parametrize("name", TENSORS)
def test_a_misshapen_tensor_is_named(change: Callable, name: str) -> None:
    tensor, _ = TENSORS[name]
    odd = np.ones((5, 7), np.float32)
    folder = change(name, edit=lambda tensors: tensors.update({tensor: odd}))
    with pytest.raises(CheckpointError, match=rf"{tensor} has shape \(5, 7\), expected \(\d+,"):
        load(SafetensorsSource(folder))


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("kept", [5, 0.3, 0.99])
def test_a_truncated_file_is_named(change: Callable, name: str, kept: float) -> None:
    path = change(name) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*"):
        load(SafetensorsSource(path.parent))


@pytest.mark.parametrize(("name", "written"), [("bloom", ""), ("opt", "decoder.")])
def test_checkpoints_of_the_model_without_its_head_are_read(
    change: Callable, name: str, written: str
) -> None:
    """As bigscience and facebook published theirs."""
    usual = FAMILIES[name].tensors.prefixes[0]

    def shorten(tensors: dict) -> None:
        for key in [key for key in tensors if key.startswith(usual)]:
            tensors[written + key.removeprefix(usual)] = tensors.pop(key)

    parameters = load(SafetensorsSource(change(name, edit=shorten))).parameters
    expected = load(SafetensorsSource(FIXTURES / name)).parameters
    same = jax.tree.map(np.array_equal, parameters, expected)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before False.*supported: True"),
        ("opt", {"word_embed_proj_dim": 32}, "word_embed_proj_dim 32.*supported: 64"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm True"),
        ("opt", {"activation_function": "gelu"}, "activation_function 'gelu'.*supported: relu"),
        ("opt", {"enable_bias": False}, "enable_bias False"),
        ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine False"),
        ("opt", {"ffn_dim": None}, r"config\.json lacks ffn_dim"),
        ("opt", {"max_position_embeddings": 0}, "max_positions is 0"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm True"),
        ("bloom", {"hidden_size": 100}, "hidden size 100 does not divide into 6 heads"),
        ("bloom", {"n_head": None}, r"config\.json lacks num_attention_heads"),
        ("starcoder2", {"hidden_act": "relu"}, "hidden_act 'relu'.*supported: gelu_pytorch_tanh"),
        ("starcoder2", {"use_bias": False}, "use_bias False.*supported: True"),
        ("starcoder2", {"sliding_window": 0}, "sliding_window is 0; None or a whole number"),
        ("starcoder2", {"sliding_window": "wide"}, "sliding_window is 'wide'"),
        ("gemma", {"hidden_act": "silu"}, "hidden_act 'silu'.*supported: gelu_pytorch_tanh, gelu"),
        ("gemma", {"hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ("gemma", {"attention_bias": True}, "attention_bias True"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ("gemma", {"architectures": ["Gemma2ForCausalLM"]}, "Gemma2ForCausalLM.*supported: Bloom"),
        ("gemma", {"architectures": ["Gemma3ForCausalLM"]}, "Gemma3ForCausalLM.*Gemma.*OPT"),
        ("mistral", {"hidden_act": "gelu"}, "hidden_act 'gelu'.*supported: silu"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_before_loading(
    change: Callable, name: str, config: dict, words: str
) -> None:
    """From the config alone: there are no weights yet."""
    folder = change(name, config)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=words):
        SafetensorsSource(folder)


def test_an_unknown_architecture_names_all_known_ones(change: Callable) -> None:
    with pytest.raises(ValueError, match="supported: " + ", ".join(sorted(ARCHITECTURES))):
        SafetensorsSource(change("opt", {"architectures": ["GPT2LMHeadModel"]}))


@pytest.mark.parametrize(
    ("name", "config", "field", "value"),
    [
        ("gemma", {"hidden_act": "gelu"}, "activation", "gelu-tanh"),
        ("gemma", {"hidden_act": "x", "hidden_activation": "gelu_pytorch_tanh"}, "layers", 2),
        ("gemma", {"tie_word_embeddings": False}, "tied", False),
        ("bloom", {"n_layer": None, "num_hidden_layers": 3}, "layers", 3),
        ("bloom", {"n_embed": 192, "hidden_size": None}, "hidden", 192),
        ("bloom", {"seq_length": 512}, "max_positions", 512),
        ("starcoder2", {"sliding_window": None}, "sliding_window", None),
        ("starcoder2", {"norm_epsilon": 1e-3}, "norm_eps", 1e-3),
        ("starcoder2", {"tie_word_embeddings": False}, "tied", False),
        ("mistral", {"sliding_window": None}, "sliding_window", None),
    ],
    ids=str,
)
def test_what_configs_say_in_their_own_way(
    change: Callable, name: str, config: dict, field: str, value: object
) -> None:
    assert getattr(SafetensorsSource(change(name, config)).spec, field) == value


@pytest.mark.parametrize("family", FAMILIES)
def test_dummy_parameters_are_shaped_as_loaded_ones(family: str) -> None:
    """On two devices that share the model, and without allocating."""
    more = {"kv_heads": 4} if family in ("opt", "bloom") else {}
    spec: ModelSpec = tiny_spec(family, layers=1, max_positions=40, **more)
    mesh = meshes.make_mesh(jax.devices()[:2], "model")
    form, compute = Forms(DenseForm(np.float32), DenseForm(np.float32)), np.float32
    places, blocks = meshes.parameter_shardings(spec, form, mesh), meshes.mlp_blocks(spec, mesh)
    dummy = dummy_parameters(spec, form, compute, places, blocks)
    loaded = load_parameters(random_tensors(spec), spec, form, compute, places, blocks)
    shapes = dummy_shapes(spec, form, compute, blocks)

    def described(tree: object) -> object:
        return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)

    assert described(dummy) == described(loaded) == described(shapes)
    assert jax.tree.map(lambda x: x.sharding, dummy) == jax.tree.map(lambda x: x.sharding, loaded)
