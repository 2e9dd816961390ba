"""Which tokens begin and end a text, from the small files that lie beside a tokenizer."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenization.chat import ChatTemplate
from tokenization.errors import TokenizerError

# Control tokens that end an answer or a text in published models. Read from the vocabulary where
# no file lists the ends, and always for GGUF, which has room for one end of sequence only.
END_NAMES = frozenset(
    {
        "</s>",
        "<eos>",
        "<end_of_turn>",
        "<|end|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|im_end|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)


@dataclass(frozen=True)
class SpecialTokens:
    """What the files say; None or empty where they say nothing.

    `bos_named` is true if a file speaks of BOS at all: a null there means the model has none.
    `added` maps the text of added tokens to (id, whether it is a control token).
    """

    bos_named: bool = False
    bos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    add_bos: bool | None = None
    chat: ChatTemplate | None = None
    added: Mapping[str, tuple[int, bool]] = field(default_factory=dict)


def read_special_tokens(
    directory: Path, id_of: Callable[[str], int | None] = lambda text: None
) -> SpecialTokens:
    """Reads the files of `directory` that are there; `id_of` finds a token's id by its text.

    Raises TokenizerError for a file that is not a JSON object or has a value of the wrong kind.
    """
    tokenizer = _read(directory / "tokenizer_config.json")
    names = _read(directory / "special_tokens_map.json") | tokenizer
    generation = _read(directory / "generation_config.json")
    model = _read(directory / "config.json")
    added = _added(tokenizer.get("added_tokens_decoder") or {}, directory)

    def find(text: str | None) -> int | None:
        if text is None:
            return None
        return added[text][0] if text in added else id_of(text)

    bos_id = find(_text(names.get("bos_token")))
    if "bos_token" not in names:
        bos_id = next(iter(_ids(generation, model, key="bos_token_id")), None)
    named_eos = find(_text(names.get("eos_token")))
    eos_ids = _ids(generation, model, key="eos_token_id") | (
        {named_eos} if named_eos is not None else set()
    )
    return SpecialTokens(
        bos_named="bos_token" in names or bos_id is not None,
        bos_id=bos_id,
        eos_ids=frozenset(eos_ids),
        add_bos=tokenizer.get("add_bos_token"),
        chat=_chat(directory, tokenizer, names),
        added=added,
    )


def end_ids(control: Mapping[str, int]) -> frozenset[int]:
    """The ids of the control tokens (id by text) whose names say that they end something."""
    return frozenset(control[name] for name in END_NAMES & control.keys())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def _text(value: object) -> str | None:
    """A token's text: written plainly, or as an object with its `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _ids(*files: dict[str, Any], key: str) -> set[int]:
    ids: set[int] = set()
    for value in (file.get(key) for file in files):
        members: Iterable[object] = value if isinstance(value, list) else [value]
        ids |= {member for member in members if isinstance(member, int)}
    return ids


def _added(entries: dict[str, Any], directory: Path) -> dict[str, tuple[int, bool]]:
    try:
        return {
            entry["content"]: (int(token_id), bool(entry.get("special", False)))
            for token_id, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(
            f"{directory / 'tokenizer_config.json'}: added_tokens_decoder must map ids to "
            f"objects with a content: {error!r}"
        ) from error


def _chat(directory: Path, tokenizer: dict[str, Any], names: dict[str, Any]) -> ChatTemplate | None:
    source = tokenizer.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
    beside = directory / "chat_template.jinja"
    if beside.is_file():
        source = beside.read_text(encoding="utf-8")
    if not isinstance(source, str):
        return None
    texts = {key: _text(value) for key, value in names.items() if key.endswith("_token")}
    return ChatTemplate(source, {key: text for key, text in texts.items() if text is not None})
