"""Bodies of /v1/chat/completions."""

from collections.abc import Mapping
from typing import Any

from server.api.ask import Conversation, Names
from server.api.config import ServerConfig
from server.api.http.fields import Fields, show, wrong
from server.api.http.question import COMMON, Question, read_question
from server.api.http.unserved import check_unserved
from server.api.refusal import invalid

_SERVED = COMMON | {"messages", "max_completion_tokens", "top_logprobs", "best_of"}
_ROLES = {"developer": "system"}  # OpenAI's newer name, which templates do not know


def read_chat(fields: Fields, config: ServerConfig) -> Question:
    """The question of a body. Raises Refusal."""
    check_unserved(fields, _SERVED)
    conversation = Conversation(_messages(fields.get("messages")))
    old, new = fields.integer("max_tokens"), fields.integer("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise invalid(
            f"max_tokens is {old} and max_completion_tokens {new}; give one of them",
            "max_completion_tokens",
        )
    name = "max_completion_tokens" if new is not None else "max_tokens"
    names = Names(text="messages", ids="prompt to /v1/completions", max_tokens=name)
    asked = new if new is not None else old
    return read_question(fields, [conversation], names, asked, _logprobs(fields), config)


def _messages(values: Any) -> list[Mapping[str, str]]:
    if values is None:
        raise invalid("messages is absent; give a list of messages", "messages")
    if not isinstance(values, list):
        wrong("messages", values, "a list of messages")
    if not values:
        raise invalid("messages is empty; give at least one message", "messages")
    return [_message(value, f"messages[{place}]") for place, value in enumerate(values)]


def _message(value: Any, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        wrong(where, value, "an object with role and content")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or not role:
        wrong(f"{where}.role", role, "a string such as system, user or assistant")
    message = {"role": _ROLES.get(role, role), "content": _content(content, f"{where}.content")}
    for name in value:
        if name in ("role", "content") or value[name] in (None, [], ""):
            continue
        if name != "name" or not isinstance(value[name], str):
            raise invalid(
                f"{where} has {show(name)}, which is unsupported; a message has role, content and "
                "name",
                f"{where}.{name[:60]}",
            )
        message["name"] = value[name]
    return message


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        wrong(where, value, "a string or a list of text parts")
    return "\n".join(_part(part, f"{where}[{place}]") for place, part in enumerate(value))


def _part(value: Any, where: str) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind != "text" or not isinstance(value.get("text"), str):
        wrong(where, value, 'a text part: {"type": "text", "text": "..."}')
    return value["text"]


def _logprobs(fields: Fields) -> bool:
    wanted = fields.boolean("logprobs")
    top = fields.integer("top_logprobs", 0)
    if top:
        wrong("top_logprobs", top, "0: only the chosen token's log-probability is given")
    return wanted
