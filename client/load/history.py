"""Conversations that go on from what the model really said."""

from collections.abc import Sequence
from dataclasses import replace

from client.targets.exchange import Answer
from client.workloads.encoding import encode_chat
from client.workloads.prompt import Prompt
from client.workloads.session import Session
from tokenization import Tokenizer


def text_of(answer: Answer) -> str:
    """Everything an answer said."""
    return "".join(piece.text for piece in answer.pieces)


def with_answers(prompt: Prompt, answers: Sequence[str]) -> Prompt:
    """A later turn with what the model really said in place of the data set's answers.

    Its text and token ids are still those of the data: a chat target sends the messages only.
    """
    said = iter(answers)
    messages = tuple(
        (role, next(said, text)) if role == "assistant" else (role, text)
        for role, text in prompt.chat
    )
    return replace(prompt, messages=messages)


def as_asked(session: Session, answers: Sequence[str], tokenizer: Tokenizer) -> list[Prompt]:
    """The turns of a session as they went out, counted anew; `answers` are those of its turns."""
    turns = list(session.turns[:1])
    for number, prompt in enumerate(session.turns[1:], start=1):
        asked = with_answers(prompt, answers[:number])
        encoded = encode_chat(asked.messages, tokenizer)
        turns.append(replace(asked, text=encoded.text, token_ids=encoded.token_ids))
    return turns
