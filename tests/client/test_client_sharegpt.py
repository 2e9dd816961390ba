"""Which conversations are asked, and how long the answers are to be."""

import json
from collections import Counter

import pytest
from client_rig import conversation
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.workloads.prompt import Prompt
from client.workloads.selection import sample_by_length, select
from client.workloads.sharegpt import ShareGPTRules, prompts_from, read_sharegpt


def prompts(tokenizer, conversations, **rules):
    return list(prompts_from(conversations, ShareGPTRules(**rules), tokenizer))


# The test tokenizer makes a token of each byte, and a BOS token.
@pytest.mark.parametrize(
    ("prompt", "reference", "rules", "used"),
    [
        ("abc", "abcd", {}, True),
        ("ab", "abcd", {}, False),
        ("abc", "abc", {}, False),
        ("a" * 1023, "abcd", {}, True),
        ("a" * 1024, "abcd", {}, False),
        ("a" * 1023, "a" * 1024, {}, True),
        ("a" * 1023, "a" * 1025, {}, False),
        ("a" * 1023, "a" * 1025, {"max_output_length": 8}, True),
        ("a" * 9, "abcd", {"min_input_length": 11}, False),
        ("a" * 9, "abcd", {"max_input_length": 9}, False),
        ("a" * 9, "abcd", {"max_target_length": 13}, False),
    ],
)
def test_lengths_decide(tokenizer, prompt, reference, rules, used):
    assert bool(prompts(tokenizer, [conversation(prompt, reference)], **rules)) is used


def test_the_reference_gives_the_length_unless_one_is_set(tokenizer):
    data = [conversation("hello", "a" * 17)]
    (found,) = prompts(tokenizer, data)
    assert (found.max_tokens, found.reference_tokens, found.text) == (17, 17, "hello")
    assert prompts(tokenizer, data, max_output_length=5)[0].max_tokens == 5


@pytest.mark.parametrize(
    ("first", "starter", "used"),
    [
        ("human", "human", True), ("gpt", "human", False), ("gpt", "gpt", True),
        ("human", "gpt", False), ("gpt", "both", True), ("human", "both", True),
        ("system", "both", False),
    ],
)  # fmt: skip
def test_the_starter_decides(tokenizer, first, starter, used):
    data = conversation("hello", "world")
    data["conversations"][0]["from"] = first
    assert bool(prompts(tokenizer, [data], starter=starter)) is used


def test_a_conversation_of_one_turn_is_left_out(tokenizer):
    data = conversation("hello", "world")
    del data["conversations"][1]
    assert prompts(tokenizer, [data, {"id": 1, "conversations": []}]) == []


def test_plain_text_leaves_bos_to_the_server_and_ids_hold_it(tokenizer):
    (found,) = prompts(tokenizer, [conversation("hello", "world")])
    assert found.token_ids == tuple(tokenizer.encode("hello"))
    assert (found.ids_have_bos, found.text_has_bos) == (True, False)


def test_a_chat_template_wraps_the_prompt_and_brings_its_own_bos(tokenizer):
    (found,) = prompts(tokenizer, [conversation("hello", "world")], chat_template=True)
    assert found.text == "<s>[hello]"
    assert list(found.token_ids) == tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}]
    )
    assert (found.ids_have_bos, found.text_has_bos) == (True, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not UTF-8 JSON"),
        ("{}", "list of conversations"),
        ("[1]", "entry 0"),
        ('[{"conversations": 3}]', "entry 0"),
        ('[{"conversations": [{"from": "human", "value": 3}]}]', "entry 0.*value"),
        ('[{"conversations": [{"value": "hello"}]}]', "entry 0.*from"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_sharegpt(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.json"):
        read_sharegpt(tmp_path / "absent.json")


def test_text_that_cannot_be_tokenized_is_named(tokenizer, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([conversation("half \ud800 a pair", "world", name="c7")]))
    with pytest.raises(UsageError, match="conversation c7"):
        prompts(tokenizer, read_sharegpt(path))


def plain(conversations):
    for entry in conversations:
        yield Prompt(id=entry["id"], text="", token_ids=(), max_tokens=1)


@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 9))
def test_selection_is_seeded_and_repeats_evenly(available, count, seed):
    data = [{"id": str(number)} for number in range(available)]
    chosen = select(data, plain, count, seed, repeat=True)
    assert chosen == select(data, plain, count, seed, repeat=True)
    uses = Counter(prompt.id for prompt in chosen.prompts)
    assert len(chosen.prompts) == count
    assert chosen.distinct == len(uses) == min(available, count)
    assert chosen.most_uses == max(uses.values())
    assert max(uses.values()) - min(uses.values()) <= 1


def test_without_repeats_there_are_as_many_as_there_are():
    chosen = select([{"id": "a"}, {"id": "b"}], plain, 5, 0, repeat=False)
    assert {prompt.id for prompt in chosen.prompts} == {"a", "b"}


def test_data_are_read_only_as_far_as_needed():
    read = []

    def noting(conversations):
        for prompt in plain(conversations):
            read.append(prompt)
            yield prompt

    select([{"id": str(number)} for number in range(1000)], noting, 3, 0, repeat=True)
    assert len(read) == 3


def test_no_conversation_that_fits_is_an_error():
    with pytest.raises(UsageError, match="none of 0 conversations"):
        select([], plain, 5, 0, repeat=True)


def test_a_sample_holds_one_prompt_of_each_size(tokenizer):
    data = [conversation("a" * length, "world") for length in (3, 4, 7, 8, 15, 100)]
    sizes = [len(prompt.token_ids) for prompt in sample_by_length(prompts(tokenizer, data))]
    # Up to 4, 8, 16 and 128 tokens, BOS included.
    assert sizes == [4, 5, 9, 101]
