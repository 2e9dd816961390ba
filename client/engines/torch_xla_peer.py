"""Hugging Face transformers through PyTorch/XLA: a static cache, one program a shape.

PyTorch/XLA 2.9, the last release, goes with PyTorch 2.9 alone, so it has an environment of its own.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from client.engines.ask import Ask
from client.engines.engine import ColdStart, Engine, Made, Unavailable
from client.engines.transformers_peer import Transformers, load_model

KINDS = ("float32", "bfloat16")


def open_engine(ask: Ask) -> Engine:
    """Loads. `Unavailable` where a library, the kind of weights or the attention is not there."""
    began = perf_counter()
    try:
        import torch
        import torch_xla
        import transformers
    except ImportError as error:
        raise Unavailable(f"torch_xla cannot be imported: {error}") from error
    if ask.kind not in KINDS:
        raise Unavailable(f"torch_xla takes weights as {', '.join(KINDS)}; not as {ask.kind!r}")
    device = torch_xla.device()
    imported = perf_counter()
    model = load_model(torch, transformers, ask, "cpu").to(device)
    torch_xla.sync(wait=True)
    cold = ColdStart(imported - began, perf_counter() - imported)
    return TorchXla(torch, torch_xla, transformers.StaticCache, model, device, cold)


class TorchXla(Transformers):
    """Steps of one shape; every other one would be compiled anew."""

    def __init__(
        self, torch: Any, xla: Any, cache: Any, model: Any, device: Any, cold: ColdStart
    ) -> None:
        super().__init__(torch, model, device, cold)
        self._xla = xla
        self._cache = cache

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """See `Engine`. Shorter prompts are padded on the left."""
        torch, longest = self._torch, max(map(len, prompts))
        ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        padding = [[0] * (longest - len(prompt)) + [1] * (len(prompt) + new) for prompt in prompts]
        mask = torch.tensor(padding, device=self._device)
        cache = self._cache(config=self._model.config, max_cache_len=longest + new)
        tokens = torch.tensor(ids, device=self._device)
        places = torch.arange(longest, device=self._device)
        first_row: list[int] = []
        stamps: list[float] = []
        with self._without_gradients():
            for _ in range(new):
                tokens = self._step(tokens, mask, places, cache)
                first_row.append(int(tokens.cpu()[0, 0]))
                stamps.append(perf_counter())
                places = places[-1:] + 1
        return Made(stamps, first_row)

    def advance(self, window: Any) -> Any:
        """See `Engine`."""
        shifted = super().advance(window)
        # Else the next pass would hold the shifting of all passes before it.
        self._xla.sync()
        return shifted

    def reset_peak(self) -> bool:
        """See `Engine`."""
        return False

    def peak_bytes(self) -> int | None:
        """See `Engine`. Where the device is the host's processor it counts nothing of its own."""
        if self.device_kind == "cpu":
            return None
        return int(self._xla.core.xla_model.get_memory_info(self._device)["peak_bytes_used"])

    @property
    def device_kind(self) -> str:
        """Such as cpu or TPU."""
        return str(self._xla.runtime.device_type()).lower()

    def _without_gradients(self) -> Any:
        # XLA's tensors have no inference mode: "Cannot set version_counter for inference tensor".
        return self._torch.no_grad()

    def _step(self, tokens: Any, mask: Any, places: Any, cache: Any) -> Any:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, places]
        scores = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            cache_position=places,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        following = scores[:, -1:].argmax(-1)
        self._xla.sync()
        return following
