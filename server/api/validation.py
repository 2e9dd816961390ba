"""What a request may ask for."""

import math

from protos import orchestrator_pb2 as pb
from server.api.config import ServerConfig
from server.api.refusal import invalid
from server.scheduler import EngineShape, Sampling

# Below this the logits, divided by the temperature, overflow float32; greedy is the same there.
COLDEST = 1e-4


def check_request(
    wire: pb.DecodeRequest, config: ServerConfig, shape: EngineShape, has_tokenizer: bool
) -> None:
    """Raises Refusal (INVALID_ARGUMENT) naming what was given and what is allowed.

    The length of a prompt given as text is not known yet; `fit_prompt` checks it.
    """
    _check_content(wire, shape, has_tokenizer)
    _check_lengths(wire, config, shape)
    _check_stops(wire, config, has_tokenizer)
    if wire.num_samples not in (0, 1):
        raise invalid(
            f"num_samples is {wire.num_samples}; several samples are unsupported: "
            "leave it out or send 1, and send the request again for each sample"
        )
    if wire.lora_adapter_id:
        raise invalid("lora_adapter_id is set; adapters are unsupported: leave it empty")


def read_sampling(wire: pb.DecodeRequest, shape: EngineShape, seed: int) -> Sampling:
    """How to sample; `seed` is used when the request has none. Raises Refusal."""
    if not wire.HasField("sampling"):
        return Sampling(seed=seed)
    given = wire.sampling
    if not math.isfinite(given.temperature) or given.temperature < 0:
        raise invalid(f"temperature is {given.temperature}; it must be finite and at least 0")
    if not 0 <= given.top_p <= 1:  # NaN fails this too
        raise invalid(f"top_p is {given.top_p}; it must be from 0 to 1, both meaning no limit")
    if given.top_k < 0:
        raise invalid(f"top_k is {given.top_k}; it must be at least 0, which means no limit")
    return Sampling(
        temperature=given.temperature if given.temperature >= COLDEST else 0.0,
        top_k=given.top_k if given.top_k < shape.vocab else 0,
        top_p=given.top_p or 1.0,
        seed=given.seed if given.HasField("seed") else seed,
    )


def _check_content(wire: pb.DecodeRequest, shape: EngineShape, has_tokenizer: bool) -> None:
    match wire.WhichOneof("content"):
        case "text_content":
            if not has_tokenizer:
                raise invalid("this server has no tokenizer; send token_content with token ids")
            if not wire.text_content.text:
                raise invalid("text_content is empty; give at least one character")
        case "token_content":
            _check_ids(wire.token_content.token_ids, shape.vocab)
        case _:
            raise invalid("content is absent; give text_content or token_content")


def _check_ids(ids: "pb.DecodeRequest.TokenContent.token_ids", vocab: int) -> None:
    if not ids:
        raise invalid("token_content is empty; give at least one token id")
    if min(ids) < 0 or max(ids) >= vocab:
        place = next(i for i, token_id in enumerate(ids) if not 0 <= token_id < vocab)
        raise invalid(f"token id {ids[place]} at position {place} is not from 0 to {vocab - 1}")


def _check_lengths(wire: pb.DecodeRequest, config: ServerConfig, shape: EngineShape) -> None:
    if wire.max_tokens < 1:
        raise invalid(f"max_tokens is {wire.max_tokens}; it must be at least 1")
    if wire.max_tokens > config.max_tokens:
        raise invalid(
            f"max_tokens is {wire.max_tokens}; this server generates at most {config.max_tokens}"
        )
    if not config.rolling and wire.max_tokens >= shape.cache_length:
        raise invalid(
            f"max_tokens is {wire.max_tokens}; prompt and generation share "
            f"a cache of {shape.cache_length} tokens"
        )


def _check_stops(wire: pb.DecodeRequest, config: ServerConfig, has_tokenizer: bool) -> None:
    if not wire.stop:
        return
    if not has_tokenizer:
        raise invalid("stop is set, but this server has no tokenizer to find it; leave it out")
    if len(wire.stop) > config.max_stop_strings:
        raise invalid(
            f"stop has {len(wire.stop)} strings; at most {config.max_stop_strings} are allowed"
        )
    for place, text in enumerate(wire.stop):
        if not 0 < len(text) <= config.max_stop_length:
            raise invalid(
                f"stop string {place} has {len(text)} characters; "
                f"1 to {config.max_stop_length} are allowed"
            )
