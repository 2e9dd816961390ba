"""What of an answer is taken for the program."""

from pathlib import Path

import pytest

from client.grading.form import STOPS, Chat, Continuation
from client.grading.problems import Problem
from tokenization import Tokenizer

PROBLEM = Problem("p/0", 'def twice(x):\n    """Twice x."""\n', "twice", "    return 2 * x\n", "")
BODY = "    return 2 * x"


def runs(program: str) -> int:
    """twice(3) of a program."""
    space: dict = {}
    exec(program, space)
    return space["twice"](3)


@pytest.mark.parametrize("stop", STOPS)
def test_a_continuation_ends_where_the_function_does(stop: str) -> None:
    form, answer = Continuation(), f"\n{BODY}\n{stop} and more\n{stop}"
    assert form.is_over(answer) and not form.is_over(f"\n{BODY}")
    assert form.completion(answer) == f"{BODY}\n"
    assert runs(PROBLEM.program(form.completion(answer))) == 6


def test_the_earliest_stop_counts() -> None:
    assert Continuation().completion("a\n#b\ndef c") == "a"


@pytest.mark.parametrize(
    "answer",
    [
        "Here:\n```python\ndef twice(x):\n    return 2 * x\n```\nSo.\n```python\n1/0\n```",
        "```\ndef twice(x):\n    return 2 * x\n```",
        "```py\nimport math\ndef twice(x):\n    return 2 * x",
        "def twice(x):\n    return 2 * x",
    ],
    ids=["with words around", "no language", "never closed", "no block"],
)
def test_a_chat_gives_its_first_block(answer: str) -> None:
    form = Chat()
    assert runs(PROBLEM.program(form.completion(answer))) == 6
    assert form.is_over(answer) == ("\n```" in answer)


def test_a_chat_goes_through_the_template(tokenizer: Tokenizer) -> None:
    prompt = Chat().prompt(PROBLEM, tokenizer)
    assert prompt.messages[0][0] == "user" and PROBLEM.prompt in prompt.messages[0][1]
    assert prompt.text.startswith("<s>[Complete") and prompt.text_has_bos
    assert tokenizer.decode(prompt.token_ids) == prompt.text.removeprefix("<s>")


def test_a_continuation_starts_with_the_problem_alone(tokenizer: Tokenizer) -> None:
    """Without its last newline, which the model writes itself."""
    prompt = Continuation().prompt(PROBLEM, tokenizer)
    assert prompt.text + "\n" == PROBLEM.prompt and prompt.messages == ()
    assert prompt.token_ids[0] == tokenizer.bos_id


def test_the_tests_know_what_the_prompt_defines(tmp_path: Path) -> None:
    """The preamble is the prompt with a body, which is a program of its own."""
    space: dict = {}
    exec(PROBLEM.task.preamble, space)
    assert space["twice"](1) is None
