"""A source's tensors by what they are for, fused as the decoder wants them, each one checked."""

import numpy as np

from server.models.families import FAMILIES
from server.models.parameters import WeightShapes
from server.models.spec import ModelSpec
from server.weights.source import CheckpointError, Source, checked

Norm = tuple[np.ndarray, np.ndarray | None]


class Checkpoint:
    """Reads a tensor when it is asked for, float32; None where the family has none.

    CheckpointError names a tensor that is missing, misshapen or, at once, not known.
    """

    def __init__(self, source: Source, spec: ModelSpec, blocks: int) -> None:
        """`blocks` as in WeightShapes."""
        self.spec = spec
        self._source = source
        self._names = FAMILIES[spec.family].tensors
        self._sizes = WeightShapes(spec, blocks)
        self._prefix = self._find_prefix()
        self._shapes = self._names.shapes(spec, self._prefix)
        self._check_names()

    def embedding(self) -> np.ndarray:
        """[V, D]."""
        return self._read(self._names.embedding)

    def positions(self) -> np.ndarray | None:
        """[positions, D], from position 0 on."""
        if self.spec.positions != "learned":
            return None
        return self._read(self._names.positions)[self.spec.unused_positions :]

    def embedding_norm(self) -> Norm | None:
        """As `norm`."""
        return self._norm(self._names.embedding_norm) if self.spec.embedding_norm else None

    def final_norm(self) -> Norm:
        """Weight and bias, [D]."""
        return self._norm(self._names.final_norm)

    def head(self) -> np.ndarray:
        """[V, D]; the embedding where the two are tied."""
        if self.spec.tied:
            return self.embedding()
        return self._checked(f"{self._names.head}.weight")

    def attention_norm(self, layer: int) -> Norm:
        """Weight and bias, [D]."""
        return self._norm(self._names.attention_norm, layer)

    def qkv(self, layer: int) -> np.ndarray:
        """[K, G+2, H, D]."""
        return self._fused_qkv(layer, "weight")

    def qkv_bias(self, layer: int) -> np.ndarray | None:
        """[K, G+2, H]."""
        return self._fused_qkv(layer, "bias") if self.spec.qkv_bias else None

    def out(self, layer: int) -> np.ndarray:
        """[D, K*G*H]."""
        return self._read(self._names.out, layer)

    def out_bias(self, layer: int) -> np.ndarray | None:
        """[D]."""
        return self._read(self._names.out, layer, "bias") if self.spec.out_bias else None

    def mlp_norm(self, layer: int) -> Norm:
        """Weight and bias, [D]."""
        return self._norm(self._names.mlp_norm, layer)

    def gate_up(self, layer: int) -> np.ndarray:
        """[C, P, F/C, D]."""
        return self._fused_gate_up(layer, "weight")

    def gate_up_bias(self, layer: int) -> np.ndarray | None:
        """[C, P, F/C]."""
        return self._fused_gate_up(layer, "bias") if self.spec.mlp_bias else None

    def down(self, layer: int) -> np.ndarray:
        """[D, F]."""
        return self._read(self._names.down, layer)

    def down_bias(self, layer: int) -> np.ndarray | None:
        """[D]."""
        return self._read(self._names.down, layer, "bias") if self.spec.mlp_bias else None

    def _fused_qkv(self, layer: int, kind: str) -> np.ndarray:
        parts = [self._read(name, layer, kind) for name in self._names.qkv]
        if len(parts) == 1:  # fused in the checkpoint: each head's query, key and value in turn
            return parts[0].reshape(*self._sizes.qkv, *parts[0].shape[1:])
        return fuse_qkv(self.spec, *parts)

    def _fused_gate_up(self, layer: int, kind: str) -> np.ndarray:
        parts = [self._read(name, layer, kind) for name in self._names.gate_up]
        blocks, _, width = self._sizes.gate_up
        return np.stack([x.reshape(blocks, width, *x.shape[1:]) for x in parts], axis=1)

    def _norm(self, name: str, layer: int | None = None) -> Norm:
        weight = self._read(name, layer) + np.float32(self._names.norm_offset)
        return weight, self._read(name, layer, "bias") if self.spec.norm == "layer" else None

    def _read(self, name: str, layer: int | None = None, kind: str = "weight") -> np.ndarray:
        place = "" if layer is None else self._names.layer.format(layer)
        return self._checked(f"{self._prefix}{place}{name}.{kind}")

    def _checked(self, name: str) -> np.ndarray:
        return checked(self._source, name, self._shapes[name])

    def _find_prefix(self) -> str:
        known = self._source.names()
        tensor = f"{self._names.embedding}.weight"
        found = [prefix for prefix in self._names.prefixes if prefix + tensor in known]
        return found[0] if found else self._names.prefixes[0]

    def _check_names(self) -> None:
        extra = self._source.names() - set(self._shapes)
        extra = {name for name in extra if not name.endswith("rotary_emb.inv_freq")}
        if self.spec.tied:
            extra.discard(f"{self._names.head}.weight")
        if extra:
            shown = ", ".join(sorted(extra)[:5])
            raise CheckpointError(
                f"{self._source.spec.name}: {len(extra)} tensors do not belong to this model: "
                f"{shown}"
            )


def fuse_qkv(spec: ModelSpec, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q [K*G*H, ..], k and v [K*H, ..] -> [K, G+2, H, ..]."""
    rest = q.shape[1:]

    def heads(x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(spec.kv_heads, count, spec.head_dim, *rest)

    return np.concatenate([heads(q, spec.group), heads(k, 1), heads(v, 1)], axis=1)
