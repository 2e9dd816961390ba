"""Hugging Face transformers on PyTorch: what one has without choosing an engine."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from client.engines.ask import Ask, Model
from client.engines.engine import ColdStart, Engine, Facts, Made, Unavailable

# How weights are kept, by our name: PyTorch's types as they are, the rest through bitsandbytes.
DTYPES = ("float32", "bfloat16", "float16")
BITSANDBYTES = ("int8", "int8-decomp", "nf4", "nf4-dq")
# Of activations beside bitsandbytes' weights.
_BESIDE = "bfloat16"
# LLM.int8() keeps columns with larger activations in 16 bit; 0: none.
_OUTLIERS = 6.0
_LIBRARIES = ("torch", "transformers", "bitsandbytes", "flash_attn")


def open_engine(ask: Ask) -> Engine:
    """Loads. `Unavailable` where the libraries, the kind of weights or the attention are not."""
    began = perf_counter()
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Unavailable(f"transformers cannot be imported: {error}") from error
    device = choose_device(torch, ask.platform)
    if ask.kind not in (*DTYPES, *BITSANDBYTES):
        raise Unavailable(
            f"transformers keeps no weights as {ask.kind!r}; it has "
            f"{', '.join((*DTYPES, *BITSANDBYTES))}"
        )
    if ask.kind in BITSANDBYTES and device == "cpu":
        raise Unavailable(f"{ask.kind} is bitsandbytes' and needs a GPU")
    imported = perf_counter()
    model = load_model(torch, transformers, ask, device)
    return Transformers(
        torch, model, device, ColdStart(imported - began, perf_counter() - imported)
    )


def choose_device(torch: Any, platform: str | None) -> str:
    """PyTorch's name of the device. `Unavailable` for a platform that is not there."""
    if platform not in (None, "cpu", "gpu"):
        raise Unavailable(f"transformers runs on cpu and gpu here, not on {platform}")
    if platform == "gpu" and not torch.cuda.is_available():
        raise Unavailable("PyTorch finds no GPU")
    return "cuda" if platform != "cpu" and torch.cuda.is_available() else "cpu"


def load_model(torch: Any, transformers: Any, ask: Ask, device: str) -> Any:
    """The model on its device, its weights trained or random, in the kind asked for."""
    dtype = getattr(torch, _BESIDE if ask.kind in BITSANDBYTES else ask.kind)
    torch.manual_seed(ask.seed)
    # bitsandbytes quantizes while a weight goes to the device.
    where = "cpu" if ask.kind in BITSANDBYTES else device
    with torch.device(where):
        try:
            model = _make(transformers, ask.model, dtype, ask.attention)
        except (ValueError, ImportError) as error:
            if ask.attention != "auto" and ask.attention in str(error):
                raise Unavailable(str(error)) from error
            raise
    if ask.kind in BITSANDBYTES:
        _quantize(torch, model, ask.kind, dtype)
    model = model.to(device).eval()
    # No end of sequence: all rows go on to the last token.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


class Transformers:
    """`generate` and plain forwards, greedy."""

    def __init__(self, torch: Any, model: Any, device: Any, cold: ColdStart) -> None:
        self._torch = torch
        self._model = model
        self._device = device
        self.cold = cold

    def facts(self) -> Facts:
        """See `Engine`."""
        model, config = self._model, self._model.config
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is not None and head.weight is table.weight
        sizes = {
            "layers": config.num_hidden_layers,
            "heads": heads,
            "head_dim": head_dim,
            "hidden": config.hidden_size,
            "vocab": config.vocab_size,
            "tied": int(tied),
        }
        window = getattr(config, "sliding_window", None)
        # Quantized weights hold several parameters in a byte.
        weights = {id(each): each for each in model.parameters()}.values()
        held = sum(each.nbytes for each in weights)
        return Facts(
            device=self.device_kind,
            devices=1,
            attention=str(getattr(config, "_attn_implementation", "-")),
            versions=_versions(),
            parameters=model.num_parameters(),
            sizes=sizes if window is None else {**sizes, "window": window},
            weight_bytes=held,
            step_weight_bytes=held if tied else held - table.weight.nbytes,
            cache_bytes_per_position=2
            * config.num_hidden_layers
            * kv_heads
            * head_dim
            * model.dtype.itemsize,
        )

    def generate(self, prompts: Sequence[Sequence[int]], new: int) -> Made:
        """See `Engine`. Shorter prompts are padded on the left, as transformers asks for."""
        torch = self._torch
        longest = max(map(len, prompts))
        ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        stamps: list[float] = []

        def stamp(_: Any, scores: Any) -> Any:
            self._wait()
            stamps.append(perf_counter())
            return scores

        with self._without_gradients():
            made = self._model.generate(
                torch.tensor(ids, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=new,
                do_sample=False,
                logits_processor=[stamp],
            )
        rows = made[:, longest:].cpu()
        if rows.shape[1] != new:
            raise RuntimeError(f"transformers made {rows.shape[1]} tokens instead of {new}")
        # The scores of a token are there a little before itself, but for the last.
        stamps[-1] = perf_counter()
        return Made(stamps, rows[0].tolist())

    def window(self, rows: Sequence[Sequence[int]]) -> Any:
        """See `Engine`."""
        return self._torch.tensor(rows, device=self._device)

    def advance(self, window: Any) -> Any:
        """See `Engine`. Only the last position goes through the head, as in `generate`."""
        torch = self._torch
        with self._without_gradients():
            scores = self._model(input_ids=window, use_cache=False, logits_to_keep=1).logits
            following = scores[:, -1:].argmax(-1)
            shifted = torch.cat([window[:, 1:], following], dim=1)
        following.cpu()
        return shifted

    def loss(self, window: Any) -> float:
        """See `Engine`."""
        with self._without_gradients():
            return float(self._model(input_ids=window, labels=window, use_cache=False).loss)

    @property
    def device_kind(self) -> str:
        """Such as cpu or NVIDIA H100."""
        return self._torch.cuda.get_device_name() if self._device == "cuda" else "cpu"

    def reset_peak(self) -> bool:
        """See `Engine`."""
        if self._device == "cuda":
            self._torch.cuda.reset_peak_memory_stats()
        return True

    def peak_bytes(self) -> int | None:
        """See `Engine`."""
        return self._torch.cuda.max_memory_allocated() if self._device == "cuda" else None

    def _without_gradients(self) -> Any:
        return self._torch.inference_mode()

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def _make(transformers: Any, model: Model, dtype: Any, attention: str) -> Any:
    kind = transformers.AutoModelForCausalLM
    how = {"dtype": dtype}
    if attention != "auto":
        how["attn_implementation"] = attention
    if model.checkpoint is not None:
        path = Path(model.checkpoint)
        if path.suffix == ".gguf":
            return kind.from_pretrained(path.parent, gguf_file=path.name, **how)
        return kind.from_pretrained(path, **how)
    config = transformers.AutoConfig.from_pretrained(model.config)
    return kind.from_config(config, **how)


def _quantize(torch: Any, model: Any, kind: str, dtype: Any) -> None:
    """Puts bitsandbytes' layers in the place of all linear ones but the head."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise Unavailable(f"{kind} needs bitsandbytes: {error}") from error
    head = model.get_output_embeddings()
    linear = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    ]
    for parent, name, layer in linear:
        setattr(parent, name, _layer(bitsandbytes.nn, layer, kind, dtype))


def _layer(library: Any, layer: Any, kind: str, dtype: Any) -> Any:
    sizes, bias = (layer.in_features, layer.out_features), layer.bias is not None
    weight = layer.weight.data
    if kind.startswith("int8"):
        outliers = _OUTLIERS if kind == "int8-decomp" else 0.0
        new = library.Linear8bitLt(*sizes, bias=bias, has_fp16_weights=False, threshold=outliers)
        new.weight = library.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        twice = kind == "nf4-dq"
        new = library.LinearNF4(*sizes, bias=bias, compute_dtype=dtype, compress_statistics=twice)
        new.weight = library.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=twice
        )
    if bias:
        new.bias = layer.bias
    return new


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
