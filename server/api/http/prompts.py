"""Bodies of /v1/completions."""

from collections.abc import Sequence
from typing import Any

from server.api.ask import Names
from server.api.config import ServerConfig
from server.api.http.fields import Fields, is_integer, wrong
from server.api.http.question import COMMON, Question, read_question
from server.api.http.unserved import check_unserved
from server.api.refusal import invalid

DEFAULT_TOKENS = 16  # OpenAI's
_SERVED = COMMON | {"prompt", "best_of"}
_NAMES = Names(text="prompt", ids="prompt")
_ALLOWED = "a text, a list of texts, a list of token ids, or a list of lists of token ids"


def read_completion(fields: Fields, config: ServerConfig) -> Question:
    """The question of a body. Raises Refusal."""
    check_unserved(fields, _SERVED)
    contents = _contents(fields.get("prompt"))
    max_tokens = fields.integer("max_tokens", DEFAULT_TOKENS)
    return read_question(fields, contents, _NAMES, max_tokens, _logprobs(fields), config)


def _contents(prompt: Any) -> Sequence[str | list[int]]:
    if prompt is None:
        raise invalid(f"prompt is absent; give {_ALLOWED}", "prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        wrong("prompt", prompt, _ALLOWED)
    if not prompt:
        raise invalid(f"prompt is an empty list; give {_ALLOWED}", "prompt")
    if all(map(is_integer, prompt)):
        return [prompt]
    if all(isinstance(one, str) for one in prompt) or all(map(_is_ids, prompt)):
        return prompt
    return wrong("prompt", prompt, _ALLOWED)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_integer, value))


def _logprobs(fields: Fields) -> bool:
    value = fields.get("logprobs")
    if value is None or value is False:
        return False
    if not is_integer(value) or value != 0:
        wrong("logprobs", value, "0 or left out: only the chosen token's log-probability is given")
    return True
