"""A GGUF file of the Llama, Qwen2 or Gemma architecture, dequantized tensor by tensor."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from server.models.families import FAMILIES
from server.models.spec import ModelSpec
from server.quant.parts import in_parts
from server.weights.source import CheckpointError

ARCHITECTURES = ("llama", "qwen2", "gemma")  # the names of our families, too
FREQUENCIES = "rope_freqs.weight"

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class GGUFSource:
    """Tensors under their Hugging Face names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise CheckpointError(f"{path}: not a readable GGUF file: {error}") from error
        self.spec = _Description(path, reader).spec()
        # Without the reader, which keeps an object for each entry of the vocabulary: 140 MiB for
        # 49,152 tokens.
        self._tensors = {
            _hugging_face_name(each.name) or each.name: _Stored(
                each.data, each.tensor_type, tuple(int(n) for n in reversed(each.shape))
            )
            for each in reader.tensors
            if each.name != FREQUENCIES
        }

    def names(self) -> set[str]:
        """Every tensor in it, by its Hugging Face name."""
        return set(self._tensors)

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, float32."""
        stored = self._tensors[name]
        try:
            values = _dequantized(stored)
        except (ValueError, NotImplementedError) as error:
            raise CheckpointError(f"{self.path}: tensor {name} cannot be read: {error}") from error
        paired = self.spec.family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight"))
        if paired and values.shape[0] % self.spec.head_dim == 0:
            return _pair_halves(values, self.spec.head_dim)
        if values.ndim == 1 and name.endswith("norm.weight"):
            # Here they are stored as they are multiplied, in Hugging Face's files less an offset.
            return values - np.float32(FAMILIES[self.spec.family].tensors.norm_offset)
        return values


@dataclass(frozen=True)
class _Stored:
    """A tensor in the file."""

    data: np.ndarray
    kind: GGMLQuantizationType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Description:
    """What a file says of its model."""

    path: Path
    reader: GGUFReader

    def spec(self) -> ModelSpec:
        """CheckpointError where we cannot run it."""
        kind = self._value("general.architecture")
        if kind not in ARCHITECTURES:
            raise CheckpointError(
                f"{self.path}: GGUF architecture {kind!r} is not supported; supported: "
                f"{', '.join(ARCHITECTURES)}"
            )
        heads = self._value(f"{kind}.attention.head_count")
        hidden = self._value(f"{kind}.embedding_length")
        stored = {tensor.name: tensor for tensor in self.reader.tensors}
        if "token_embd.weight" not in stored:
            raise CheckpointError(f"{self.path}: tensor token_embd.weight is missing")
        factors = stored.get(FREQUENCIES)
        eos = self._value("tokenizer.ggml.eos_token_id", None)
        head_dim = self._value(f"{kind}.attention.key_length", hidden // heads)
        self._refuse_unless(f"{kind}.rope.scaling.type", "none")
        self._refuse_unless(f"{kind}.rope.dimension_count", head_dim)
        values = {
            "name": self.path.stem,
            "hidden": hidden,
            "layers": self._value(f"{kind}.block_count"),
            "heads": heads,
            "kv_heads": self._value(f"{kind}.attention.head_count_kv", heads),
            "head_dim": head_dim,
            "ffn": self._value(f"{kind}.feed_forward_length"),
            "vocab": int(stored["token_embd.weight"].shape[1]),
            "max_positions": self._value(f"{kind}.context_length"),
            "rope_theta": float(self._value(f"{kind}.rope.freq_base", 10000.0)),
            "rope_factors": tuple(map(float, factors.data)) if factors is not None else None,
            "norm_eps": float(self._value(f"{kind}.attention.layer_norm_rms_epsilon")),
            "tied": "output.weight" not in stored,
            "bos_id": self._value("tokenizer.ggml.bos_token_id", None),
            "eos_ids": () if eos is None else (eos,),
        }
        return FAMILIES[kind].spec(values)

    def _refuse_unless(self, key: str, supported: Any) -> None:
        value = self._value(key, supported)
        if value != supported:
            raise CheckpointError(
                f"{self.path}: {key} {value!r} is not supported; supported: {supported!r}"
            )

    def _value(self, key: str, *default: Any) -> Any:
        field = self.reader.get_field(key)
        if field is not None:
            return field.contents()
        if default:
            return default[0]
        raise CheckpointError(f"{self.path}: key {key} is missing")


def _dequantized(stored: _Stored) -> np.ndarray:
    """float32. The library makes everything twice, so it gets a few rows at a time."""
    data, kind = stored.data, stored.kind
    if data.ndim != 2:
        values = dequantize(data, kind)
    else:
        values = in_parts(data, lambda part: dequantize(part, kind))
    return np.asarray(values, np.float32).reshape(stored.shape)


def _hugging_face_name(name: str) -> str | None:
    for ours, theirs in _NAMES.items():
        if name == theirs:
            return ours
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None:
        return None
    for ours, theirs in _LAYER_NAMES.items():
        if match[2] == theirs:
            return f"model.layers.{match[1]}.{ours}.{match[3]}"
    return None


def _pair_halves(w: np.ndarray, head_dim: int) -> np.ndarray:
    """[N*H, D]: GGUF's Llama files interleave the two halves of a head; put them back in a row."""
    heads = w.reshape(-1, head_dim // 2, 2, w.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(w.shape)
