"""The tokens that the model will read for a request."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from protos import orchestrator_pb2 as pb
from server.api.config import ServerConfig
from server.api.refusal import invalid
from server.scheduler import EngineShape
from tokenization import Tokenizer, TokenizerError

# Encoding a longer text takes over a millisecond, which would hold up every running stream.
LONG_TEXT = 2_000


@dataclass(frozen=True)
class Prompt:
    """`tokens` include BOS; `truncated` counts the tokens that were dropped."""

    tokens: Sequence[int]
    truncated: int = 0


async def read_prompt(
    wire: pb.DecodeRequest, tokenizer: Tokenizer | None, executor: Executor
) -> list[int]:
    """The token ids of a checked request, BOS first unless it has one. Raises Refusal."""
    if wire.WhichOneof("content") == "token_content":
        ids = list(wire.token_content.token_ids)
        return [*_bos(wire, tokenizer), *ids]
    assert tokenizer is not None
    text, bos = wire.text_content.text, not wire.has_bos
    try:
        if len(text) > LONG_TEXT:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, tokenizer.encode, text, bos)
        return tokenizer.encode(text, bos)
    except TokenizerError as error:
        raise invalid(f"text_content cannot be encoded: {error}") from error


def fit_prompt(
    ids: list[int],
    wire: pb.DecodeRequest,
    tokenizer: Tokenizer | None,
    config: ServerConfig,
    shape: EngineShape,
) -> Prompt:
    """The prompt within the limits. Raises Refusal when it is too long and may not be cut."""
    if not ids:
        raise invalid("text_content encodes to no tokens; give some text")
    if max(ids) >= shape.vocab:
        raise invalid(
            f"the prompt holds token id {max(ids)}, but the model knows {shape.vocab} tokens; "
            "the tokenizer is not the model's"
        )
    limit, why = _limit(wire, config, shape)
    if len(ids) <= limit:
        return Prompt(ids)
    if not wire.truncate_prompt:
        raise invalid(
            f"the prompt has {len(ids)} tokens; at most {limit} are allowed ({why}): "
            "shorten it or set truncate_prompt"
        )
    head = ids[:1] if _starts_with_bos(ids, wire, tokenizer) and limit > 1 else []
    return Prompt([*head, *ids[len(ids) - (limit - len(head)) :]], truncated=len(ids) - limit)


def _limit(wire: pb.DecodeRequest, config: ServerConfig, shape: EngineShape) -> tuple[int, str]:
    room = shape.cache_length - wire.max_tokens
    if not config.rolling and room < config.max_prompt_length:
        return room, f"a cache of {shape.cache_length} less max_tokens {wire.max_tokens}"
    return config.max_prompt_length, "the server's max_prompt_length"


def _bos(wire: pb.DecodeRequest, tokenizer: Tokenizer | None) -> list[int]:
    if wire.has_bos or tokenizer is None or not tokenizer.add_bos or tokenizer.bos_id is None:
        return []
    return [tokenizer.bos_id]


def _starts_with_bos(ids: list[int], wire: pb.DecodeRequest, tokenizer: Tokenizer | None) -> bool:
    if tokenizer is None or tokenizer.bos_id is None:
        return wire.has_bos
    return ids[0] == tokenizer.bos_id
