"""Hugging Face directories: every way they are stored, and every way they are broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from server.models.families import ARCHITECTURES, FAMILIES
from server.models.spec import RopeScaling
from server.weights.safetensors import SafetensorsSource
from server.weights.source import CheckpointError
from tests.models.tiny import load, random_tensors, tiny_spec

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
SPEC = tiny_spec(layers=1, hidden=32, heads=2, kv_heads=1, ffn=48, vocab=64)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "vocab_size": 64,
    "hidden_act": "silu",
    "eos_token_id": 2,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small checkpoint: `config` changes keys (None removes), `change` the tensors."""

    def write(
        config: dict | None = None, change: Callable[[dict], None] | None = None, dtype=np.float32
    ) -> Path:
        merged = {**CONFIG, **(config or {})}
        merged = {key: value for key, value in merged.items() if value is not None}
        tensors = dict(random_tensors(SPEC).values)
        if change is not None:
            change(tensors)
        (tmp_path / "config.json").write_text(json.dumps(merged))
        save_file(
            {name: np.ascontiguousarray(x.astype(dtype)) for name, x in tensors.items()},
            tmp_path / "model.safetensors",
        )
        return tmp_path

    return write


def opened(folder: Path) -> object:
    """Everything that loading does."""
    return load(SafetensorsSource(folder))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=str)
def test_each_stored_type_is_read(write: Callable, dtype: type) -> None:
    source = SafetensorsSource(write(dtype=dtype))
    for name, value in random_tensors(SPEC).values.items():
        read = source.tensor(name)
        assert read.dtype == np.float32
        assert np.array_equal(read, value.astype(dtype).astype(np.float32))


def test_shards_are_found_through_their_index() -> None:
    source = SafetensorsSource(FIXTURES / "qwen25")
    index = json.loads((FIXTURES / "qwen25" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert source.names() == set(index["weight_map"])
    assert source.tensor("model.layers.1.self_attn.k_proj.bias").shape == (32,)


def test_shards_without_an_index_are_read_too(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "qwen25", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert SafetensorsSource(tmp_path).names() == SafetensorsSource(FIXTURES / "qwen25").names()


def test_a_tied_model_may_store_its_head_too(write: Callable) -> None:
    """As older ones do; it is not used."""
    folder = write(config={"tie_word_embeddings": True})
    source = SafetensorsSource(folder)
    assert source.spec.tied and "lm_head.weight" in source.names()
    head = np.asarray(load(source).parameters.head.w)
    assert np.array_equal(head, source.tensor("model.embed_tokens.weight"))


def test_rotary_tables_of_old_checkpoints_are_ignored(write: Callable) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    opened(write(change=lambda tensors: tensors.update({name: np.ones(8)})))


def test_a_missing_tensor_is_named(write: Callable) -> None:
    folder = write(change=lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.mlp\.up_proj\.weight is missing"):
        opened(folder)


def test_a_missing_head_is_named(write: Callable) -> None:
    folder = write(change=lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        opened(folder)


def test_an_extra_tensor_is_named(write: Callable) -> None:
    name = "model.layers.0.self_attn.q_norm.weight"
    folder = write(change=lambda tensors: tensors.update({name: np.ones(16)}))
    with pytest.raises(CheckpointError, match=r"do not belong to this model: .*q_norm\.weight"):
        opened(folder)


def test_biases_that_the_model_has_not_are_named(write: Callable) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    folder = write(change=lambda tensors: tensors.update({name: np.ones(32)}))
    with pytest.raises(CheckpointError, match=r"do not belong.*q_proj\.bias"):
        opened(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.k_proj.weight", "model.norm.weight", "lm_head.weight"]
)
def test_a_misshapen_tensor_is_named(write: Callable, name: str) -> None:
    folder = write(change=lambda tensors: tensors.update({name: np.ones((5, 7))}))
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(5, 7\), expected \("):
        opened(folder)


@pytest.mark.parametrize("kept", [0, 7, 300, 0.5])
def test_a_truncated_file_is_named(write: Callable, kept: float) -> None:
    folder = write()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*"):
        opened(folder)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "qwen25", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00004"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", '{"weight_map": 3}', "[1]", "{", '{"weight_map": {"a": 1}}']
)
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    shutil.copytree(FIXTURES / "qwen25", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        opened(tmp_path)


def test_no_weights_and_no_config(write: Callable, tmp_path: Path) -> None:
    (write() / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        opened(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json; a checkpoint is a directory with"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"architectures": 3}'])
def test_a_broken_config_is_named(write: Callable, text: str) -> None:
    folder = write()
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        opened(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"MambaForCausalLM.*supported: .*Llama.*Qwen2"),
        ({"architectures": []}, "not named in config.json"),
        ({"architectures": None}, "not named in config.json"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "wide"}, "config"),
        ({"hidden_size": 0}, "hidden is 0"),
        ({"num_attention_heads": 0}, "heads"),
        ({"num_attention_heads": 3}, "hidden size 32 does not divide into 3 heads"),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 2, "head_dim": 16},
            "3 query heads do not divide",
        ),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"num_hidden_layers": 1.5}, "1.5"),
        ({"hidden_act": "gelu"}, "'gelu' is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported; supported: False"),
        ({"mlp_bias": True}, "mlp_bias True is not supported; supported: False"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True},
            "use_sliding_window True is not supported",
        ),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_served_is_refused(
    write: Callable, change: dict, words: str
) -> None:
    """ValueError, so that the command line shows it; what is wrong is in it."""
    with pytest.raises(ValueError, match=words):
        opened(write(config=change))


def test_a_config_of_each_generation_of_transformers(write: Callable) -> None:
    """Before and since version 5 rotary settings stand in different keys."""
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    old = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **scaling}}
    new = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **scaling}}
    for config in (old, new):
        spec = SafetensorsSource(write(config=config)).spec
        assert spec.rope_theta == 5e5
        assert spec.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 64)
    plain = SafetensorsSource(write(config={"rope_theta": 1e6, "rope_scaling": None})).spec
    assert plain.rope_theta == 1e6 and plain.rope_scaling is None


def test_several_end_tokens(write: Callable) -> None:
    assert SafetensorsSource(write(config={"eos_token_id": [2, 7]})).spec.eos_ids == (2, 7)
    assert SafetensorsSource(write(config={"eos_token_id": None})).spec.eos_ids == ()


def test_every_architecture_is_read() -> None:
    families = {SafetensorsSource(folder).spec.family for folder in FIXTURES.iterdir()}
    assert families == set(FAMILIES) and len(ARCHITECTURES) == len(FAMILIES)
