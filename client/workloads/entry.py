"""One line of a user's own data: a prompt or a conversation, and how much to ask for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from client.errors import UsageError
from client.workloads.encoding import Encoded, encode_chat, encode_text
from client.workloads.limits import Limits
from client.workloads.prompt import Prompt
from tokenization import Tokenizer, TokenizerError


@dataclass(frozen=True, slots=True)
class Entry:
    """`text` or `messages` as (role, content) is asked; the other is empty.

    The length asked for is `max_tokens`, or that of `answer`. `time` in seconds, where it has one.
    """

    id: str
    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    answer: str = ""
    max_tokens: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class EntryRules:
    """`output_length` above 0 is asked of every request. `chat_template`: for `text` too."""

    limits: Limits
    output_length: int = 0
    chat_template: bool = False


def prompts_of(
    entries: Iterable[Entry], rules: EntryRules, tokenizer: Tokenizer
) -> Iterator[tuple[Entry, Prompt]]:
    """The entries that fit the limits, with their prompts, each tokenized when it is asked for.

    Raises `UsageError` for an entry that cannot be tokenized or does not say how much to ask for.
    """
    for entry in entries:
        try:
            prompt = _prompt(entry, rules, tokenizer)
        except TokenizerError as error:
            raise UsageError(f"{entry.id}: {error}") from error
        if rules.limits.allow(len(prompt.token_ids), prompt.max_tokens):
            yield entry, prompt


def split_messages(messages: Any) -> tuple[tuple[tuple[str, str], ...], str]:
    """What is asked and the answer: a last message of the assistant is the answer.

    A content is a text, or a list of parts with texts. Raises `ValueError` for anything else.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages: a list of objects with role and content")
    found = tuple(_message(message) for message in messages)
    if found[-1][0] == "assistant":
        found, answer = found[:-1], found[-1][1]
    else:
        answer = ""
    if not found:
        raise ValueError("messages: nothing is asked before the assistant's answer")
    return found, answer


def _prompt(entry: Entry, rules: EntryRules, tokenizer: Tokenizer) -> Prompt:
    encoded = _encoded(entry, rules, tokenizer)
    answer_tokens = len(tokenizer.encode(entry.answer, bos=False)) if entry.answer else 0
    max_tokens = rules.output_length or entry.max_tokens or answer_tokens
    if not max_tokens:
        raise UsageError(
            f"{entry.id}: nothing says how many tokens to ask for (no max_tokens, output_len or "
            "answer); give --output-len"
        )
    return Prompt(
        id=entry.id,
        text=encoded.text,
        token_ids=encoded.token_ids,
        max_tokens=max_tokens,
        ids_have_bos=encoded.ids_have_bos,
        text_has_bos=encoded.text_has_bos,
        reference=entry.answer,
        reference_tokens=answer_tokens,
        messages=entry.messages,
    )


def _encoded(entry: Entry, rules: EntryRules, tokenizer: Tokenizer) -> Encoded:
    if entry.messages:
        return encode_chat(entry.messages, tokenizer)
    if not rules.chat_template:
        return encode_text(entry.text, tokenizer)
    if tokenizer.chat is None:
        raise UsageError("the tokenizer has no chat template; leave out --use-chat-template")
    return encode_chat([("user", entry.text)], tokenizer)


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError("messages: each is an object with role and content")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(content, str):
        raise ValueError("messages: a content is a text, or a list of parts with texts")
    return message["role"], content
