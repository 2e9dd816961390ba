"""Conversations asked turn by turn, each with the history before it."""

import json

import numpy as np
import pytest

from client.errors import UsageError
from client.workloads.build import build_workload
from client.workloads.limits import Limits
from client.workloads.multi_turn import MultiTurn
from client.workloads.settings import WorkloadSettings
from tokenization import Tokenizer


@pytest.fixture
def workload(tmp_path, tokenizer):
    def build(
        conversations, count=10, seed=0, using=tokenizer, turns=0, think_time=0.0,
        count_sessions=False, **given,
    ):  # fmt: skip
        path = tmp_path / "data.json"
        path.write_text(json.dumps(conversations))
        settings = WorkloadSettings(
            path=path, multi_turn=MultiTurn(turns, think_time), **{"repeat": False} | given
        )
        return build_workload(settings, using, count, seed, count_sessions)

    return build


def talk(*values, name="c", speakers=("human", "gpt")):
    turns = [{"from": speakers[n % 2], "value": value} for n, value in enumerate(values)]
    return {"id": name, "conversations": turns}


@pytest.fixture
def plain(tokenizer):
    """The same tokenizer without its chat template."""
    return Tokenizer(
        tokenizer.encode_text, tokenizer.pieces, tokenizer.bos_id, tokenizer.eos_ids, True
    )


def test_each_turn_carries_the_history_with_the_answers_of_the_data(workload, tokenizer):
    made = workload([talk("hello", "world", "how so", "because", "and now", "nothing")])
    (session,) = made.sessions
    one, two, three = session.turns
    assert one.messages == (("user", "hello"),)
    assert two.messages == (("user", "hello"), ("assistant", "world"), ("user", "how so"))
    assert three.messages[3:] == (("assistant", "because"), ("user", "and now"))
    assert [turn.text for turn in session.turns] == [
        "<s>[hello]",
        "<s>[hello][world][how so]",
        "<s>[hello][world][how so][because][and now]",
    ]
    for turn in session.turns:
        assert turn.token_ids == tuple(tokenizer.encode(turn.text, bos=False))
        assert (turn.ids_have_bos, turn.text_has_bos) == (True, True)
    assert [(turn.reference, turn.max_tokens) for turn in session.turns] == [
        ("world", 5), ("because", 7), ("nothing", 7),
    ]  # fmt: skip
    assert [turn.id for turn in session.turns] == ["c/0", "c/1", "c/2"]
    assert (session.id, session.delays, session.due) == ("c", (0.0, 0.0, 0.0), None)


def test_without_a_template_the_messages_are_joined(workload, plain):
    (_, two) = workload([talk("hello", "world", "how so", "because")], using=plain).prompts
    assert two.text == "hello\n\nworld\n\nhow so"
    assert two.token_ids == tuple(plain.encode(two.text))
    assert (two.ids_have_bos, two.text_has_bos) == (True, False)


@pytest.mark.parametrize(("turns", "asked"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_no_more_turns_than_asked_for(workload, turns, asked):
    made = workload([talk("hello", "world", "how", "because", "and", "nothing")], turns=turns)
    assert len(made.prompts) == asked


def test_a_conversation_ends_where_it_stops_being_one(workload):
    twice = talk("hello", "world", "how", "because")
    twice["conversations"][2]["from"] = "gpt"
    unanswered = talk("hello", "world", "how")
    emptily = talk("hello", "world", "how", "", "and", "nothing")
    made = workload([twice, unanswered, emptily])
    assert [len(session.turns) for session in made.sessions] == [1, 1, 1]


def test_a_short_answer_ends_no_conversation_but_a_short_first_one_is_noise(workload):
    assert len(workload([talk("hello", "world", "sure?", "no", "why", "dunno")]).prompts) == 3
    with pytest.raises(UsageError, match="none of 1"):
        workload([talk("hello", "no", "sure?", "not at all")])


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        (Limits(None, None, None), 2),
        # [hello] is 8 tokens, [hello][world][how so] 23.
        (Limits(None, 23, None), 2),
        (Limits(None, 22, None), 1),
        (Limits(None, None, 30), 2),
        (Limits(None, None, 29), 1),
        (Limits(8, None, None), 2),
    ],
)
def test_a_conversation_ends_at_the_limits(workload, limits, asked):
    made = workload([talk("hello", "world", "how so", "because")], limits=limits)
    assert len(made.prompts) == asked


def test_a_conversation_that_starts_over_the_limits_is_left_out(workload):
    with pytest.raises(UsageError, match="none of 1"):
        workload([talk("hello", "world", "how so", "because")], limits=Limits(9, None, None))


def test_the_starter_decides(workload):
    other = talk("hello", "world", speakers=("gpt", "human"))
    with pytest.raises(UsageError, match="none of 1"):
        workload([other])
    assert len(workload([other], starter="gpt").prompts) == 1


def test_requests_are_counted_and_conversations_used_again(workload):
    data = [talk("hello", "world", "how", "because", "and", f"nothing {n}", name=f"{n}")
            for n in range(3)]  # fmt: skip
    made = workload(data, count=20, repeat=True)
    assert [len(session.turns) for session in made.sessions] == [3] * 6 + [2]
    assert {session.id for session in made.sessions} == {"0", "1", "2"}
    assert sorted(session.id for session in made.sessions[:3]) == ["0", "1", "2"]
    assert sorted(session.id for session in made.sessions[3:6]) == ["0", "1", "2"]
    assert "7 conversations (3 distinct) of up to 3 turns, 20 requests" in made.description
    assert len(workload(data, count=20).prompts) == 9
    assert len(workload(data, count=4).prompts) == 4


def test_sessions_are_counted_when_asked(workload):
    data = [talk("hello", "world", "how", "because", name=f"{n}") for n in range(3)]
    made = workload(data, count=5, count_sessions=True, repeat=True)
    assert [len(session.turns) for session in made.sessions] == [2] * 5
    assert len({session.id for session in made.sessions[:3]}) == 3
    assert len(workload(data, count=2, count_sessions=True).sessions) == 2


def test_think_times_are_exponential_and_the_first_turn_does_not_wait(workload):
    data = [talk(*["hello"] * 40, name=f"{n}") for n in range(60)]
    made = workload(data, count=10_000, think_time=3.0)
    assert all(session.delays[0] == 0 for session in made.sessions)
    assert all(len(session.delays) == len(session.turns) for session in made.sessions)
    delays = np.concatenate([session.delays[1:] for session in made.sessions])
    assert delays.mean() == pytest.approx(3.0, rel=0.15)
    assert delays.std() == pytest.approx(3.0, rel=0.15)
    assert made == workload(data, count=10_000, think_time=3.0)
    other = workload(data, count=10_000, think_time=3.0, seed=1)
    assert {s.delays for s in made.sessions}.isdisjoint(s.delays for s in other.sessions)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"turns": -1}, "--multi-turn"),
        ({"think_time": -1.0}, "--think-time"),
        ({"think_time": float("inf")}, "--think-time"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        MultiTurn(**wrong)


def test_a_later_turn_of_the_wrong_form_is_named(workload):
    data = talk("hello", "world", "how", "because")
    del data["conversations"][3]["value"]
    with pytest.raises(UsageError, match='conversation c: a turn has no text "value"'):
        workload([data])
