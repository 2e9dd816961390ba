"""ShareGPT conversations as prompts: the first turn is asked, the second gives the length."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.workloads.encoding import Encoded, encode_text
from client.workloads.prompt import Prompt
from tokenization import Tokenizer, TokenizerError

STARTERS = ("human", "gpt", "both")
# Shorter prompts and references are noise in the data (JetStream and vLLM drop them too).
_MIN_REFERENCE = 4


@dataclass(frozen=True)
class ShareGPTRules:
    """Which conversations are used, and how many tokens are asked for. Lengths in tokens.

    `max_output_length` 0 asks for as many tokens as the reference answer has; another number is
    asked of every request.
    """

    starter: str = "human"
    min_input_length: int = 4
    max_input_length: int = 1024
    max_target_length: int = 2048
    max_output_length: int = 0
    chat_template: bool = False

    def __post_init__(self) -> None:
        if self.starter not in STARTERS:
            raise UsageError(f"conversation starter: {', '.join(STARTERS)}; got {self.starter!r}")
        for name in ("min_input_length", "max_input_length", "max_target_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: 1 or more; got {getattr(self, name)}")
        if self.max_output_length < 0:
            raise UsageError(
                f"max_output_length: 0 (the reference's) or more; got {self.max_output_length}"
            )
        if self.min_input_length > self.max_input_length:
            raise UsageError(
                f"min_input_length {self.min_input_length} is above max_input_length "
                f"{self.max_input_length}"
            )


def read_sharegpt(path: Path) -> list[dict[str, Any]]:
    """Reads a ShareGPT JSON file: a list of {"id", "conversations": [{"from", "value"}, ...]}.

    Raises `UsageError` when the file is absent or is not of this form.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the data set {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not UTF-8 JSON: {error}") from error
    if not isinstance(data, list):
        raise UsageError(
            f"{path}: a ShareGPT file is a list of conversations; this is a {type(data).__name__}"
        )
    for number, entry in enumerate(data):
        problem = problem_of(entry)
        if problem:
            raise UsageError(f"{path}: entry {number}: {problem}")
    return data


def prompts_from(
    conversations: Iterable[dict[str, Any]], rules: ShareGPTRules, tokenizer: Tokenizer
) -> Iterator[Prompt]:
    """The conversations that fit the rules, in order, each tokenized when it is asked for.

    Raises `UsageError` for a conversation that is not of ShareGPT form.
    """
    for number, conversation in enumerate(conversations):
        problem = problem_of(conversation)
        if problem:
            raise UsageError(f"conversation {conversation_id(conversation, number)}: {problem}")
        prompt = _prompt(conversation, conversation_id(conversation, number), rules, tokenizer)
        if prompt is not None:
            yield prompt


def conversation_id(conversation: Any, number: int) -> str:
    """Its own id, or its number in the data."""
    given = conversation.get("id") if isinstance(conversation, dict) else None
    return str(number if given is None else given)


def starts_with(speaker: str, starter: str) -> bool:
    """Whether a conversation that this speaker starts is to be used."""
    return speaker in ("human", "gpt") if starter == "both" else speaker == starter


def problem_of(entry: Any, all_turns: bool = False) -> str | None:
    """What is wrong with the form of a conversation's first two turns, or of all; None: nothing."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        return 'no list "conversations"'
    for turn in turns if all_turns else turns[:2]:
        if not isinstance(turn, dict):
            return "a turn is not an object"
        for key in ("from", "value"):
            if not isinstance(turn.get(key), str):
                return f'a turn has no text "{key}"'
    return None


def _prompt(
    conversation: dict[str, Any], name: str, rules: ShareGPTRules, tokenizer: Tokenizer
) -> Prompt | None:
    turns = conversation["conversations"]
    if len(turns) < 2 or not starts_with(turns[0]["from"], rules.starter):
        return None
    try:
        prompt = _tokenized(turns[0]["value"], turns[1]["value"], name, rules, tokenizer)
    except TokenizerError as error:
        raise UsageError(f"conversation {name}: {error}") from error
    return prompt if _fits(prompt, rules) else None


def _tokenized(
    text: str, reference: str, name: str, rules: ShareGPTRules, tokenizer: Tokenizer
) -> Prompt:
    if rules.chat_template:
        text = _templated(text, tokenizer)
    encoded = encode_text(text, tokenizer, templated=rules.chat_template)
    return answered(name, encoded, reference, rules, tokenizer)


def answered(
    name: str,
    encoded: Encoded,
    reference: str,
    rules: ShareGPTRules,
    tokenizer: Tokenizer,
    messages: tuple[tuple[str, str], ...] = (),
) -> Prompt:
    """A prompt that asks for as many tokens as its answer in the data has, or as the rules say."""
    reference_tokens = len(tokenizer.encode(reference, bos=False))
    return Prompt(
        id=name,
        text=encoded.text,
        token_ids=encoded.token_ids,
        ids_have_bos=encoded.ids_have_bos,
        text_has_bos=encoded.text_has_bos,
        max_tokens=rules.max_output_length or reference_tokens,
        reference=reference,
        reference_tokens=reference_tokens,
        messages=messages,
    )


def _templated(text: str, tokenizer: Tokenizer) -> str:
    if tokenizer.chat is None:
        raise UsageError("the tokenizer has no chat template; leave out --use-chat-template")
    return tokenizer.chat.render([{"role": "user", "content": text}])


def _fits(prompt: Prompt, rules: ShareGPTRules) -> bool:
    length = len(prompt.token_ids)
    return (
        rules.min_input_length <= length <= rules.max_input_length
        and prompt.reference_tokens >= _MIN_REFERENCE
        and length + prompt.max_tokens <= rules.max_target_length
    )
