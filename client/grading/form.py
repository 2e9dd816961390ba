"""How a problem is put to a model, and what of its answer is the program."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from client.grading.problems import Problem
from client.workloads.encoding import encode_chat, encode_text
from client.workloads.prompt import Prompt
from tokenization import Tokenizer

# Those of the paper on HumanEval (arXiv:2107.03374), and the end of a block in Markdown.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")
_INSTRUCTION = (
    "Complete the following Python function. Answer with the whole function in one block of "
    "Python code and nothing else.\n\n```python\n{}```"
)
_BLOCK = re.compile(r"```(?:[Pp]ython|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_CLOSED = re.compile(r"```[^\n]*\n.*?\n```", re.DOTALL)


class Form(Protocol):
    """One way to ask."""

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> Prompt:
        """What is asked, with `max_tokens` 1 still to be replaced."""

    def is_over(self, answer: str) -> bool:
        """Whether nothing that still comes can change the completion."""

    def completion(self, answer: str) -> str:
        """What is put after the problem's prompt to make the program."""


@dataclass(frozen=True)
class Continuation:
    """The model goes on writing the file; it is cut where the function ends.

    The newline that the prompt ends with is left to the model: tokenizers join it with the
    indentation after it, so a model has hardly seen a newline that stands alone before code.
    """

    stops: Sequence[str] = STOPS

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> Prompt:
        """See `Form.prompt`."""
        encoded = encode_text(problem.prompt.rstrip(), tokenizer)
        return Prompt(
            id=problem.id,
            text=encoded.text,
            token_ids=encoded.token_ids,
            max_tokens=1,
            ids_have_bos=encoded.ids_have_bos,
            text_has_bos=encoded.text_has_bos,
        )

    def is_over(self, answer: str) -> bool:
        """See `Form.is_over`."""
        return any(stop in answer for stop in self.stops)

    def completion(self, answer: str) -> str:
        """See `Form.completion`."""
        ends = [answer.find(stop) for stop in self.stops]
        written = answer[: min((end for end in ends if end >= 0), default=len(answer))]
        return written.removeprefix("\n")


@dataclass(frozen=True)
class Chat:
    """The model is asked for the whole function, and its first block of code is taken."""

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> Prompt:
        """See `Form.prompt`."""
        messages = (("user", _INSTRUCTION.format(problem.prompt)),)
        encoded = encode_chat(messages, tokenizer)
        return Prompt(
            id=problem.id,
            text=encoded.text,
            token_ids=encoded.token_ids,
            max_tokens=1,
            ids_have_bos=encoded.ids_have_bos,
            text_has_bos=encoded.text_has_bos,
            messages=messages,
        )

    def is_over(self, answer: str) -> bool:
        """See `Form.is_over`."""
        return _CLOSED.search(answer) is not None

    def completion(self, answer: str) -> str:
        """See `Form.completion`. Without a block, all of the answer is taken for code."""
        block = _BLOCK.search(answer)
        # After a body for the prompt's own head, the answer defines the function again.
        return f"\n    pass\n\n{answer if block is None else block[1]}\n"


FORMS: dict[str, Form] = {"continuation": Continuation(), "chat": Chat()}
