"""A user's own prompts from a file of JSON lines."""

import json
import shutil
from collections import Counter

import pytest

from client.errors import UsageError
from client.workloads.build import build_workload
from client.workloads.limits import Limits
from client.workloads.settings import WorkloadSettings
from client.workloads.trace import TraceSettings
from tokenization import load_tokenizer


@pytest.fixture
def workload(tmp_path, tokenizer):
    def build(lines, count=10, seed=0, **given):
        path = tmp_path / "own.jsonl"
        written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("\n".join(written))
        settings = WorkloadSettings(kind="jsonl", path=path, **given)
        return build_workload(settings, tokenizer, count, seed)

    return build


def test_prompts_are_asked_as_they_are(workload, tokenizer):
    made = workload([{"prompt": "hello", "max_tokens": 7, "id": 12, "other": None}], count=1)
    (session,) = made.sessions
    (prompt,) = session.turns
    assert (prompt.id, prompt.text, prompt.max_tokens, session.due) == ("12", "hello", 7, None)
    assert prompt.token_ids == tuple(tokenizer.encode("hello"))
    assert (prompt.ids_have_bos, prompt.text_has_bos) == (True, False)


def test_text_and_output_len_are_other_names_and_the_line_is_the_id(workload):
    made = workload([{"text": "hello", "output_len": 7}], count=1)
    assert (made.prompts[0].id, made.prompts[0].max_tokens) == ("line 1", 7)


def test_messages_go_through_the_template_and_keep_their_history(workload, tokenizer):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"text": "lo"}]},
    ]
    (prompt,) = workload([{"messages": messages, "max_tokens": 3}], count=1).prompts
    assert prompt.messages == (("system", "be brief"), ("user", "hello"))
    assert prompt.text == "<s>[be brief][hello]"
    assert prompt.token_ids == tuple(tokenizer.encode(prompt.text, bos=False))
    assert (prompt.ids_have_bos, prompt.text_has_bos) == (True, True)


def test_a_last_answer_is_the_reference_and_gives_the_length(workload):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world!"}]
    (prompt,) = workload([{"messages": messages}], count=1).prompts
    assert prompt.messages == (("user", "hello"),)
    assert (prompt.reference, prompt.reference_tokens, prompt.max_tokens) == ("world!", 6, 6)


def test_a_chat_template_wraps_plain_prompts_when_asked(workload):
    made = workload([{"prompt": "hello", "max_tokens": 1}], count=1, chat_template=True)
    assert made.prompts[0].text == "<s>[hello]"


def test_an_output_length_is_asked_of_all(workload):
    made = workload([{"prompt": "a", "max_tokens": 7}, {"prompt": "b"}], count=2, output_length=5)
    assert {prompt.max_tokens for prompt in made.prompts} == {5}


def test_few_prompts_are_used_again_or_not(workload):
    lines = [{"prompt": name, "max_tokens": 1} for name in "abc"]
    made = workload(lines, count=7)
    assert sorted(Counter(p.text for p in made.prompts).values()) == [2, 2, 3]
    assert (made.distinct, made.most_uses) == (3, 3)
    assert len(workload(lines, count=7, repeat=False).prompts) == 3


def test_timestamps_say_when_each_is_due(workload):
    lines = [
        {"prompt": "late", "max_tokens": 1, "timestamp": 107},
        {"prompt": "first", "max_tokens": 1, "timestamp": 100.5},
        {"prompt": "between", "max_tokens": 1, "timestamp": 103},
    ]
    made = workload(lines, count=2, trace=TraceSettings(speed=5.0))
    assert [(s.turns[0].text, s.due) for s in made.sessions] == [("first", 0.0), ("between", 0.5)]
    assert made.description.startswith("2 of 3 prompts")


def test_limits_leave_out_and_only_when_given(workload):
    lines = [{"prompt": "a" * 5000, "max_tokens": 9000}, {"prompt": "ab", "max_tokens": 1}]
    assert len(workload(lines, count=2).prompts) == 2
    made = workload(lines, count=2, repeat=False, limits=Limits(None, None, 10_000))
    assert [prompt.text for prompt in made.prompts] == ["ab"]
    with pytest.raises(UsageError, match="none of 2"):
        workload(lines, limits=Limits(9000, None, None))
    timed = [line | {"timestamp": 0} for line in lines]
    with pytest.raises(UsageError, match="none of the 2"):
        workload(timed, limits=Limits(9000, None, None))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1"),
        (["[1]"], "line 1: a line is a JSON object"),
        (["", {"id": 1}], "line 2: one of prompt, text, messages; got none"),
        ([{"prompt": "a", "text": "b"}], "got prompt, text"),
        ([{"prompt": 3}], "a text that is not empty; got 3"),
        ([{"prompt": ""}], "not empty"),
        ([{"messages": []}], "a list of objects"),
        ([{"messages": [{"role": "user"}]}], "a content is a text"),
        ([{"messages": [{"content": "a"}]}], "each is an object with role"),
        ([{"messages": [{"role": "assistant", "content": "a"}]}], "nothing is asked"),
        ([{"messages": [{"role": "user", "content": [{"image": 1}]}]}], "parts with texts"),
        ([{"prompt": "a", "max_tokens": 0}], "max_tokens: a whole number"),
        ([{"prompt": "a", "max_tokens": True}], "max_tokens: a whole number"),
        ([{"prompt": "a", "max_tokens": 1, "output_len": 2}], "differ"),
        ([{"prompt": "a", "timestamp": "noon"}], "timestamp: seconds"),
        (['{"prompt": "a", "timestamp": NaN}'], "timestamp: seconds"),
        ([{"prompt": "a", "timestamp": 1}, {"prompt": "a"}], "1 of 2 lines have a timestamp"),
        ([{"prompt": "a"}], "line 1: nothing says how many .* give --output-len"),
        ([{"prompt": "\ud800", "max_tokens": 1}], "line 1: .*surrogate"),
        ([], "none of 0"),
    ],
)
def test_wrong_lines_are_named(workload, lines, message):
    with pytest.raises(UsageError, match=message):
        workload(lines)


def test_a_template_that_refuses_is_reported(tmp_path, tokenizer_path):
    folder = shutil.copytree(tokenizer_path, tmp_path / "strict")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ raise_exception('no system messages') }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    path = tmp_path / "own.jsonl"
    path.write_text('{"messages": [{"role": "system", "content": "x"}], "max_tokens": 1}')
    with pytest.raises(UsageError, match=r"line 1: .*no system messages"):
        build_workload(WorkloadSettings(kind="jsonl", path=path), load_tokenizer(folder), 1, 0)
