"""Data sets through Hugging Face's library, here one that keeps its data in memory."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from client.errors import UsageError
from client.workloads.build import build_workload
from client.workloads.hub import HubSettings
from client.workloads.multi_turn import MultiTurn
from client.workloads.settings import WorkloadSettings

QUESTIONS = [{"question": f"what is {n}", "answer": "a" * n} for n in range(5, 9)]
TALKS = [
    {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "world"},
            {"role": "user", "content": "how so"},
            {"role": "assistant", "content": "because"},
        ]
    }
]
SHARED = [{"conversations": [{"from": "human", "value": "hi all"},
                             {"from": "gpt", "value": "hello"}]}]  # fmt: skip


class LibraryError(Exception):
    """What the library raises of its own."""


@pytest.fixture
def library(monkeypatch):
    """Stands in for `datasets`: notes the calls and answers with `rows`, or raises `fault`."""
    held = SimpleNamespace(calls=[], rows=QUESTIONS, fault=None)

    def load(*arguments, **named):
        held.calls.append((arguments, named))
        if held.fault is not None:
            raise held.fault
        return held.rows

    module = ModuleType("datasets")
    module.load_dataset = module.load_from_disk = load
    module.exceptions = SimpleNamespace(DatasetsError=LibraryError)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return held


@pytest.fixture
def workload(tokenizer):
    def build(name="some/set", count=2, multi_turn=None, output_length=0, **given):
        settings = WorkloadSettings(
            kind="hf",
            hub=HubSettings(name, **given),
            multi_turn=multi_turn,
            output_length=output_length,
        )
        return build_workload(settings, tokenizer, count, 0)

    return build


def test_texts_are_asked_and_answers_give_the_lengths(library, workload):
    made = workload(count=4, split="test", subset="main", answer_column="answer")
    assert library.calls == [(("some/set", "main"), {"split": "test"})]
    assert {(p.text, p.max_tokens) for p in made.prompts} == {
        (f"what is {n}", n) for n in range(5, 9)
    }
    assert made.prompts[0].id.startswith("row ")


def test_only_as_many_rows_are_read_as_are_needed(library, workload):
    class Rows(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    read, library.rows = [], Rows(QUESTIONS * 1000)
    workload(answer_column="answer")
    assert len(read) < 10


def test_conversations_are_asked_as_those_of_sharegpt(library, workload):
    library.rows = TALKS
    (prompt,) = workload(count=1).prompts
    assert (prompt.text, prompt.max_tokens) == ("hello", 5)
    _, two = workload(count=2, multi_turn=MultiTurn()).prompts
    assert two.messages == (("user", "hello"), ("assistant", "world"), ("user", "how so"))
    library.rows = SHARED
    assert workload(count=1).prompts[0].text == "hi all"


def test_a_file_is_read_by_its_suffix_and_a_saved_folder_from_disk(library, workload, tmp_path):
    path = tmp_path / "own.PARQUET"
    path.touch()
    workload(str(path), output_length=3)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "state.json").touch()
    workload(str(saved), output_length=3)
    assert library.calls == [
        (("parquet",), {"data_files": str(path), "split": "train"}),
        ((str(saved),), {}),
    ]
    (saved / "dataset_dict.json").touch()
    library.rows = {"test": QUESTIONS}
    assert len(workload(str(saved), split="test", output_length=3).prompts) == 2
    with pytest.raises(UsageError, match="its splits are test; got 'train'"):
        workload(str(saved), output_length=3)


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        (QUESTIONS, {"prompt_column": "body"}, r"no column body; its columns are question, answer"),
        (QUESTIONS, {"answer_column": "reply"}, "--answer-column: the data set has no column repl"),
        ([{"a": 1}], {}, "no column prompt or messages"),
        ([{"prompt": 1}], {}, "texts, or lists of turns; got int"),
        ([{"prompt": "a"}, {"prompt": None}], {"output_length": 2}, "row 1: prompt is a NoneType"),
        ([], {}, "holds no rows"),
        (QUESTIONS, {}, "give --output-len"),
        (QUESTIONS, {"multi_turn": MultiTurn()}, "holds single prompts"),
        ([{"messages": [3]}], {}, "row 0: a turn has no text"),
    ],
)
def test_data_of_another_form_are_named(library, workload, rows, given, message):
    library.rows = rows
    with pytest.raises(UsageError, match=message):
        workload(**given)


def test_a_file_of_another_kind_is_named(library, workload, tmp_path):
    path = tmp_path / "own.doc"
    path.touch()
    with pytest.raises(UsageError, match=r"ends in one of \.json"):
        workload(str(path))


@pytest.mark.parametrize(
    "fault", [FileNotFoundError("nowhere"), ValueError("no such split"), LibraryError("odd")]
)
def test_what_the_library_says_is_passed_on(library, workload, fault):
    library.fault = fault
    with pytest.raises(UsageError, match=f"cannot load some/set .*{fault}"):
        workload()


def test_the_cause_of_an_error_is_said_and_not_that_there_was_one(library, workload):
    library.fault = LibraryError("an error occurred")
    library.fault.__cause__ = ValueError("row 7\nis broken")
    with pytest.raises(UsageError, match="from disk: row 7 is broken"):
        workload()


def test_without_the_library_the_extra_is_named(monkeypatch, workload):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"loadstone\[hub\]"):
        workload()


def test_our_own_folder_of_samples_is_not_the_library(monkeypatch, workload):
    monkeypatch.setitem(sys.modules, "datasets", ModuleType("datasets"))
    with pytest.raises(UsageError, match=r"loadstone\[hub\]"):
        workload()
