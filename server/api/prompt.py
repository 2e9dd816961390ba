"""The tokens that the model will read for a request."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from server.api.ask import Ask, Conversation
from server.api.config import ServerConfig
from server.api.refusal import invalid
from server.scheduler import EngineShape
from tokenization import Tokenizer, TokenizerError

# Encoding a longer text takes over a millisecond, which would hold up every running stream.
LONG_TEXT = 2_000


@dataclass(frozen=True)
class Prompt:
    """`tokens` include BOS; `truncated` counts those that were dropped. `max_tokens` is how many
    may be generated after it.
    """

    tokens: Sequence[int]
    max_tokens: int
    truncated: int = 0


async def read_prompt(ask: Ask, tokenizer: Tokenizer | None, executor: Executor) -> list[int]:
    """The token ids of a checked ask, BOS first unless it has one. Raises Refusal."""
    content = ask.content
    if not isinstance(content, str | Conversation):
        return [*_bos(ask, tokenizer), *content]
    assert tokenizer is not None
    try:
        if _length(content) > LONG_TEXT:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, _encoder(ask, content, tokenizer))
        return _encoder(ask, content, tokenizer)()
    except TokenizerError as error:
        name = ask.names.text
        raise invalid(f"{name} cannot be encoded: {error}", name) from error


def fit_prompt(
    ids: list[int],
    ask: Ask,
    tokenizer: Tokenizer | None,
    config: ServerConfig,
    shape: EngineShape,
) -> Prompt:
    """The prompt within the limits. Raises Refusal when it is too long and may not be cut."""
    name = ask.names.text
    if not ids:
        raise invalid(f"{name} encodes to no tokens; give some text", name)
    if max(ids) >= shape.vocab:
        raise invalid(
            f"the prompt holds token id {max(ids)}, but the model knows {shape.vocab} tokens; "
            "the tokenizer is not the model's"
        )
    limit, why = _limit(ask, config, shape)
    if len(ids) <= limit:
        return Prompt(ids, _room(ask, len(ids), config, shape))
    if not ask.truncate:
        cut = f" or set {ask.names.truncate}" if ask.names.truncate else ""
        raise invalid(
            f"the prompt has {len(ids)} tokens; at most {limit} are allowed ({why}): "
            f"shorten it{cut}",
            name,
        )
    head = ids[:1] if _starts_with_bos(ids, ask, tokenizer) and limit > 1 else []
    kept = [*head, *ids[len(ids) - (limit - len(head)) :]]
    return Prompt(kept, _room(ask, limit, config, shape), truncated=len(ids) - limit)


def _length(content: str | Conversation) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(message["content"]) for message in content.messages)


def _encoder(
    ask: Ask, content: str | Conversation, tokenizer: Tokenizer
) -> Callable[[], list[int]]:
    if isinstance(content, Conversation):
        return lambda: tokenizer.apply_chat_template(content.messages)
    return lambda: tokenizer.encode(content, not ask.has_bos)


def _limit(ask: Ask, config: ServerConfig, shape: EngineShape) -> tuple[int, str]:
    limits = [(config.max_prompt_length, "the server's max_prompt_length")]
    if shape.positions is not None:
        limits.insert(0, (shape.positions, "the positions that the model has"))
    if not config.rolling:
        asked = ask.max_tokens or 1
        why = f"a cache of {shape.cache_length} less {ask.names.max_tokens} {asked}"
        limits.append((shape.cache_length - asked, why))
    return min(limits, key=lambda limit: limit[0])


def _room(ask: Ask, length: int, config: ServerConfig, shape: EngineShape) -> int:
    if ask.max_tokens is not None:
        return shape.most_tokens(length, ask.max_tokens)
    most = shape.most_tokens(length, min(config.default_max_tokens, config.max_tokens))
    return most if config.rolling else min(most, shape.cache_length - length)


def _bos(ask: Ask, tokenizer: Tokenizer | None) -> list[int]:
    if ask.has_bos or tokenizer is None or not tokenizer.add_bos or tokenizer.bos_id is None:
        return []
    return [tokenizer.bos_id]


def _starts_with_bos(ids: list[int], ask: Ask, tokenizer: Tokenizer | None) -> bool:
    if tokenizer is None or tokenizer.bos_id is None:
        return ask.has_bos
    return ids[0] == tokenizer.bos_id
