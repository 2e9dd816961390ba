"""What a request may ask for."""

import math
from collections.abc import Sequence

from server.api.ask import Ask, Conversation
from server.api.config import ServerConfig
from server.api.refusal import invalid
from server.scheduler import EngineShape, Sampling

# Below this the logits, divided by the temperature, overflow float32; greedy is the same there.
COLDEST = 1e-4
_SEEDS = 2**64


def check_ask(ask: Ask, config: ServerConfig, shape: EngineShape, has_tokenizer: bool) -> None:
    """Raises Refusal (INVALID) naming what was given and what is allowed.

    The length of a prompt given as text is not known yet; `fit_prompt` checks it.
    """
    _check_content(ask, shape, has_tokenizer)
    _check_lengths(ask, config, shape)
    _check_stops(ask, config, has_tokenizer)
    _check_sampling(ask)


def read_sampling(ask: Ask, shape: EngineShape, seed: int) -> Sampling:
    """How to sample for a checked ask; `seed` is used when it has none."""
    return Sampling(
        temperature=ask.temperature if ask.temperature >= COLDEST else 0.0,
        top_k=ask.top_k if ask.top_k < shape.vocab else 0,
        top_p=ask.top_p or 1.0,
        seed=seed if ask.seed is None else ask.seed,
    )


def _check_content(ask: Ask, shape: EngineShape, has_tokenizer: bool) -> None:
    names = ask.names
    if isinstance(ask.content, str | Conversation):
        if not has_tokenizer:
            raise invalid(
                f"this server has no tokenizer; send {names.ids} with token ids", names.text
            )
        if not ask.content:
            raise invalid(f"{names.text} is empty; give at least one character", names.text)
    else:
        _check_ids(ask.content, shape.vocab, names.ids)


def _check_ids(ids: Sequence[int], vocab: int, name: str) -> None:
    if not ids:
        raise invalid(f"{name} is empty; give at least one token id", name)
    if min(ids) < 0 or max(ids) >= vocab:
        place = next(i for i, token_id in enumerate(ids) if not 0 <= token_id < vocab)
        raise invalid(f"token id {ids[place]} at position {place} is not from 0 to {vocab - 1}")


def _check_lengths(ask: Ask, config: ServerConfig, shape: EngineShape) -> None:
    asked, name = ask.max_tokens, ask.names.max_tokens
    if asked is None:
        return
    if asked < 1:
        raise invalid(f"{name} is {asked}; it must be at least 1", name)
    if asked > config.max_tokens:
        raise invalid(f"{name} is {asked}; this server generates at most {config.max_tokens}", name)
    if not config.rolling and asked >= shape.cache_length:
        raise invalid(
            f"{name} is {asked}; prompt and generation share "
            f"a cache of {shape.cache_length} tokens",
            name,
        )


def _check_stops(ask: Ask, config: ServerConfig, has_tokenizer: bool) -> None:
    if not ask.stops:
        return
    if not has_tokenizer:
        raise invalid(
            "stop is set, but this server has no tokenizer to find it; leave it out", "stop"
        )
    if len(ask.stops) > config.max_stop_strings:
        raise invalid(
            f"stop has {len(ask.stops)} strings; at most {config.max_stop_strings} are allowed",
            "stop",
        )
    for place, text in enumerate(ask.stops):
        if not 0 < len(text) <= config.max_stop_length:
            raise invalid(
                f"stop string {place} has {len(text)} characters; "
                f"1 to {config.max_stop_length} are allowed",
                "stop",
            )


def _check_sampling(ask: Ask) -> None:
    if not math.isfinite(ask.temperature) or ask.temperature < 0:
        raise invalid(
            f"temperature is {ask.temperature}; it must be finite and at least 0", "temperature"
        )
    if not 0 <= ask.top_p <= 1:  # NaN fails this too
        raise invalid(
            f"top_p is {ask.top_p}; it must be from 0 to 1, both meaning no limit", "top_p"
        )
    if ask.top_k < 0:
        raise invalid(f"top_k is {ask.top_k}; it must be at least 0, which means no limit", "top_k")
    if ask.seed is not None and not 0 <= ask.seed < _SEEDS:
        raise invalid(f"seed is {ask.seed}; it must be from 0 to 2**64 - 1", "seed")
