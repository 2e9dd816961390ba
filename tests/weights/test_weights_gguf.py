"""GGUF files: small ones written here with the format's own library."""

import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from server.models.spec import ModelSpec
from server.weights.gguf import GGUFSource
from server.weights.source import CheckpointError
from tests.models.plain import plain_logits
from tests.models.tiny import Row, Tensors, load, random_tensors, tiny_spec
from tokenization import default_model_path

LLAMA = tiny_spec(layers=1, hidden=32, heads=2, kv_heads=1, ffn=64, vocab=64, name="model")
SMALL = {"layers": 1, "hidden": 32, "heads": 2, "kv_heads": 1, "ffn": 64, "vocab": 64}
QWEN = tiny_spec("qwen2", **SMALL)
GEMMA = tiny_spec("gemma", **SMALL, head_dim=32, tied=True)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def stored_name(name: str) -> str:
    """The name that llama.cpp gives a tensor."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name.replace("model.layers.", "blk.")


def interleaved(w: np.ndarray, size: int) -> np.ndarray:
    """As llama.cpp's converter stores Llama's queries and keys: pairs side by side."""
    heads = w.reshape(-1, 2, size // 2, w.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(w.shape)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model; `change` edits its tensors (llama.cpp's names), `keys` its metadata."""

    def write(
        source: Tensors,
        change: Callable[[dict], None] | None = None,
        keys: dict | None = None,
        kind: str | None = None,
        quantize: bool = False,
    ) -> Path:
        spec = source.spec
        kind = kind or spec.family
        tensors = {}
        for name, value in source.values.items():
            if spec.family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                value = interleaved(value, spec.head_dim)
            if spec.family == "gemma" and name.endswith("norm.weight"):
                value = value + 1  # as its converter does
            tensors[stored_name(name)] = value
        if change is not None:
            change(tensors)
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, kind)
        writer.add_block_count(spec.layers)
        writer.add_context_length(spec.max_positions)
        writer.add_embedding_length(spec.hidden)
        writer.add_feed_forward_length(spec.ffn)
        writer.add_head_count(spec.heads)
        writer.add_head_count_kv(spec.kv_heads)
        if spec.head_dim * spec.heads != spec.hidden:
            writer.add_key_length(spec.head_dim)
        writer.add_layer_norm_rms_eps(spec.norm_eps)
        writer.add_rope_freq_base(spec.rope_theta)
        writer.add_eos_token_id(2)
        for key, value in (keys or {}).items():
            add = writer.add_string if isinstance(value, str) else writer.add_uint32
            add(key, value)
        for name, value in tensors.items():
            if quantize and value.ndim == 2:
                kind_of = gguf.GGMLQuantizationType.Q8_0
                packed = gguf.quants.quantize(value, kind_of)
                writer.add_tensor(name, packed, raw_dtype=kind_of)
            else:
                writer.add_tensor(name, value.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.mark.parametrize("spec", [LLAMA, QWEN, GEMMA], ids=["llama", "qwen2", "gemma"])
def test_every_tensor_comes_back(write: Callable, spec: ModelSpec) -> None:
    """Under its Hugging Face name, its rows in Hugging Face's order."""
    source = random_tensors(spec)
    read = GGUFSource(write(source))
    assert read.names() == source.names()
    for name in source.names():
        gap = np.abs(read.tensor(name) - source.tensor(name)).max()
        assert gap <= (2e-7 if spec is GEMMA and "norm" in name else 0), name
    told = {"name": spec.name, "eos_ids": (2,), "norm_eps": pytest.approx(spec.norm_eps)}
    assert vars(replace(read.spec, name=spec.name)) == vars(spec) | told


@pytest.mark.parametrize("spec", [LLAMA, QWEN, GEMMA], ids=["llama", "qwen2", "gemma"])
def test_logits_are_those_of_the_tensors(write: Callable, spec: ModelSpec) -> None:
    source = random_tensors(spec)
    model, tokens = load(GGUFSource(write(source))), list(range(3, 40))
    (scores,), _ = model.read(model.empty(1, 64), [Row(0, 0, tokens)], 37, 0)
    assert np.abs(scores - plain_logits(source, tokens)).max() < 1e-3


def test_quantized_tensors_are_dequantized(write: Callable) -> None:
    source = random_tensors(LLAMA)
    read = GGUFSource(write(source, quantize=True))
    for name in source.names():
        value = source.tensor(name)
        assert np.abs(read.tensor(name) - value).max() <= np.abs(value).max() / 200


def test_a_file_without_a_head_is_tied(write: Callable) -> None:
    path = write(random_tensors(LLAMA), change=lambda tensors: tensors.pop("output.weight"))
    assert GGUFSource(path).spec.tied


def test_frequency_factors_divide_the_frequencies(write: Callable) -> None:
    """Llama 3.1's scaling as GGUF carries it."""
    factors = np.asarray([1, 1, 2, 3, 5, 8, 8, 8], np.float32)
    source = random_tensors(LLAMA)
    path = write(source, change=lambda t: t.update({"rope_freqs.weight": factors}))
    model = load(GGUFSource(path))
    tokens = list(range(3, 40))
    (scores,), _ = model.read(model.empty(1, 64), [Row(0, 0, tokens)], 37, 0)
    assert model.spec.rope_factors == tuple(factors)
    assert np.abs(scores - plain_logits(source, tokens)).max() > 0.1
    scaled = plain_logits(Tensors(model.spec, source.values), tokens)
    assert np.abs(scores - scaled).max() < 1e-3


def test_a_missing_tensor_is_named(write: Callable) -> None:
    path = write(random_tensors(LLAMA), change=lambda t: t.pop("blk.0.ffn_up.weight"))
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj\.weight is missing"):
        load(GGUFSource(path))


@pytest.mark.parametrize(
    "name",
    ["blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "blk.0.ffn_gate_inp.weight", "odd.weight"],
)
def test_an_extra_tensor_is_named(write: Callable, name: str) -> None:
    """One that would be left out silently would change what the model says."""
    path = write(random_tensors(LLAMA), change=lambda t: t.update({name: np.ones(32)}))
    with pytest.raises(CheckpointError, match="do not belong to this model"):
        load(GGUFSource(path))


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.0.ffn_up.weight"])
def test_a_misshapen_tensor_is_named(write: Callable, name: str) -> None:
    path = write(random_tensors(LLAMA), change=lambda t: t.update({name: np.ones((5, 32))}))
    with pytest.raises(CheckpointError, match=r"_proj\.weight has shape \(5, 32\), expected \("):
        load(GGUFSource(path))


def test_an_unknown_architecture_is_named(write: Callable) -> None:
    path = write(random_tensors(LLAMA), kind="gemma2")
    words = r"'gemma2' is not supported; supported: llama, qwen2, gemma$"
    with pytest.raises(CheckpointError, match=words):
        GGUFSource(path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"llama.rope.scaling.type": "linear"}, "rope.scaling.type 'linear' is not supported"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count 8 is not supported"),
    ],
    ids=str,
)
def test_what_the_decoder_does_not_do_is_refused(write: Callable, keys: dict, words: str) -> None:
    path = write(random_tensors(LLAMA), keys=keys)
    with pytest.raises(CheckpointError, match=words):
        GGUFSource(path)


def test_harmless_keys_are_no_hindrance(write: Callable) -> None:
    keys = {"llama.rope.scaling.type": "none", "llama.rope.dimension_count": 16}
    load(GGUFSource(write(random_tensors(LLAMA), keys=keys)))


@pytest.mark.parametrize("spec", [LLAMA, GEMMA], ids=["llama", "gemma"])
@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.999])
def test_a_truncated_file_is_named(write: Callable, kept: float, spec: ModelSpec) -> None:
    path = write(random_tensors(spec))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"model\.gguf"):
        load(GGUFSource(path))


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(CheckpointError, match=r"model\.gguf: not a readable GGUF file"):
        GGUFSource(path)


def test_half_of_the_real_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    shutil.copyfile(default_model_path(), path)
    with path.open("r+b") as file:
        file.truncate(60_000_000)
    with pytest.raises(CheckpointError, match=r"half\.gguf"):
        load(GGUFSource(path))


def test_a_tensor_is_dequantized_with_little_beside_it() -> None:
    source = GGUFSource(default_model_path())
    tracemalloc.start()
    try:
        table = source.tensor("model.embed_tokens.weight")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.shape == (source.spec.vocab, source.spec.hidden)
    # Whole, the library takes it twice.
    assert peak < 1.2 * table.nbytes
