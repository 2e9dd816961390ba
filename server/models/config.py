"""A Hugging Face `config.json`, read key by key; what cannot be served is refused by name."""

from dataclasses import dataclass
from typing import Any

from server.models.spec import RopeScaling


@dataclass(frozen=True)
class Config:
    """The keys of one model; a key that is null counts as absent. Errors are ValueErrors."""

    model: str
    values: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        value = self.values.get(key)
        return default if value is None else value

    def need(self, *keys: str) -> list[Any]:
        """The values of keys that must be there."""
        missing = [key for key in keys if self.get(key) is None]
        if missing:
            raise ValueError(f"{self.model}: config.json lacks {', '.join(missing)}")
        return [self.get(key) for key in keys]

    def only(self, key: str, *supported: Any) -> None:
        """Refuses a key with a value that is not among these; the first is what absence means."""
        value = self.get(key, supported[0])
        if value not in supported:
            raise ValueError(
                f"{self.model}: {key} {value!r} is not supported; supported: "
                f"{', '.join(map(str, supported))}"
            )

    def head_dim(self, hidden: int, heads: int) -> int:
        """As told, or the hidden size shared among the heads."""
        told = self.get("head_dim")
        if told is None and heads and hidden % heads:
            raise ValueError(
                f"{self.model}: hidden size {hidden} does not divide into {heads} heads"
            )
        return told or hidden // max(heads, 1)

    def ends(self) -> dict[str, Any]:
        """The tokens that begin and end a text, as fields of ModelSpec."""
        eos = self.get("eos_token_id", [])
        eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
        return {"bos_id": self.get("bos_token_id"), "eos_ids": eos_ids}

    def rope(self) -> dict[str, Any]:
        """Rotary positions, as fields of ModelSpec.

        transformers 5 writes rope_parameters; older ones rope_theta and rope_scaling.
        """
        values = self.get("rope_parameters") or self.get("rope_scaling") or {}
        part = values.get("partial_rotary_factor") or self.get("partial_rotary_factor", 1.0)
        if part != 1.0:
            raise ValueError(
                f"{self.model}: partial_rotary_factor {part} is not supported; supported: 1"
            )
        theta = float(values.get("rope_theta") or self.get("rope_theta", 10000.0))
        kind = values.get("rope_type") or values.get("type") or "default"
        if kind not in ("default", "llama3"):
            raise ValueError(
                f"{self.model}: rope_type {kind!r} is not supported; supported: default, llama3"
            )
        scaling = None if kind == "default" else _llama3(values)
        return {"rope_theta": theta, "rope_scaling": scaling}


def _llama3(values: dict[str, Any]) -> RopeScaling:
    return RopeScaling(
        factor=values["factor"],
        low_frequency_factor=values["low_freq_factor"],
        high_frequency_factor=values["high_freq_factor"],
        original_positions=values["original_max_position_embeddings"],
    )
