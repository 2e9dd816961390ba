"""Rows of a data set as prompts or as conversations."""

from collections.abc import Sequence
from typing import Any

from client.errors import UsageError
from client.workloads.entry import Entry
from client.workloads.hub import HubSettings, Mapped, prompt_column

# ShareGPT's names for who speaks.
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def holds_conversations(rows: Sequence[dict[str, Any]], settings: HubSettings) -> bool:
    """Whether the prompts are lists of turns and not texts. Raises `UsageError` for neither."""
    if not len(rows):
        raise UsageError(f"{settings.name}, split {settings.split}, holds no rows")
    column = prompt_column(settings, rows[0])
    value = rows[0][column]
    if isinstance(value, str | list):
        return isinstance(value, list)
    raise UsageError(
        f"--prompt-column {column}: texts, or lists of turns; got {type(value).__name__}"
    )


def as_entries(rows: Sequence[dict[str, Any]], settings: HubSettings) -> Sequence[Entry]:
    """Each row's prompt, and the answer where there is a column for it."""
    column = prompt_column(settings, rows[0])

    def read(index: int, row: dict[str, Any]) -> Entry:
        return Entry(
            id=f"row {index}",
            text=_text(row[column], column, index),
            answer=_text(row[settings.answer_column], settings.answer_column, index)
            if settings.answer_column
            else "",
        )

    return Mapped(rows, read)


def as_conversations(
    rows: Sequence[dict[str, Any]], settings: HubSettings
) -> Sequence[dict[str, Any]]:
    """Each row in ShareGPT's form, from its own (from, value) or from (role, content).

    Messages of the system at the start are left out.
    """
    column = prompt_column(settings, rows[0])

    def read(index: int, row: dict[str, Any]) -> dict[str, Any]:
        given = row[column] if isinstance(row[column], list) else []
        turns = [_turn(turn) for turn in given]
        while turns and turns[0].get("from") == "system":
            turns = turns[1:]
        return {"id": f"row {index}", "conversations": turns}

    return Mapped(rows, read)


def _turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        return {}
    if "from" in turn:
        return turn
    role = turn.get("role")
    return {"from": _SPEAKERS.get(str(role), role), "value": turn.get("content")}


def _text(value: Any, column: str, index: int) -> str:
    if not isinstance(value, str):
        raise UsageError(f"row {index}: {column} is a {type(value).__name__}, not a text")
    return value
