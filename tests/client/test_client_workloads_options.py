"""The command line of workloads."""

import argparse
import json
import pickle
from pathlib import Path

import pytest
from client_rig import conversation

from client.errors import UsageError
from client.workloads.build import build_workload
from client.workloads.hub import HubSettings
from client.workloads.lengths import LengthSettings
from client.workloads.limits import Limits
from client.workloads.multi_turn import MultiTurn
from client.workloads.options import add_workload_options, workload_settings
from client.workloads.prompt import Prompt
from client.workloads.selection import select
from client.workloads.session import Session
from client.workloads.settings import WorkloadSettings
from client.workloads.sharegpt import ShareGPTRules, prompts_from, read_sharegpt
from client.workloads.synthetic import SharedPrefixes
from client.workloads.trace import TraceSettings
from client.workloads.workload import Workload

TRACE = Path("trace.csv")


def parsed(*arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_workload_options(parser.add_argument_group("what is asked"))
    return workload_settings(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], WorkloadSettings()),
        (["--dataset-name", "sharegpt-hub", "--no-repeat"],
         WorkloadSettings("sharegpt-hub", repeat=False)),
        (["--multi-turn"], WorkloadSettings(multi_turn=MultiTurn())),
        (["--multi-turn", "3", "--think-time", "1.5"],
         WorkloadSettings(multi_turn=MultiTurn(3, 1.5))),
        (["--conversation-starter", "gpt", "--use-chat-template", "--sharegpt-output-len", "9"],
         WorkloadSettings(starter="gpt", chat_template=True, output_length=9)),
        (["--min-input-length", "5", "--max-input-length", "6", "--max-target-length", "7"],
         WorkloadSettings(limits=Limits(5, 6, 7))),
        (["--dataset-name", "random", "--random-input-len", "10", "--random-output-len", "20",
          "--random-range-ratio", "0.5"],
         WorkloadSettings("synthetic", lengths=LengthSettings(10, 20, range_ratio=0.5))),
        (["--dataset", "synthetic", "--input-len", "10", "--output-len", "5",
          "--random-distribution", "lognormal", "--random-sigma", "1"],
         WorkloadSettings("synthetic", output_length=5,
                          lengths=LengthSettings(10, 128, "lognormal", sigma=1.0))),
        (["--dataset", "prefix"], WorkloadSettings("prefix", prefixes=SharedPrefixes())),
        (["--dataset-name", "prefix_repetition", "--prefix-len", "7", "--num-prefixes", "3"],
         WorkloadSettings("prefix", prefixes=SharedPrefixes(7, 3))),
        (["--dataset", "trace", "--trace-path", "trace.csv", "--trace-speed", "2",
          "--trace-scale", "0.5", "--trace-overlong", "skip"],
         WorkloadSettings("trace", TRACE, trace=TraceSettings(2.0, 0.5, "skip"))),
        (["--dataset", "trace", "--dataset-path", "trace.csv"], WorkloadSettings("trace", TRACE)),
        (["--dataset-name", "custom", "--dataset-path", "trace.csv"],
         WorkloadSettings("jsonl", TRACE)),
        (["--dataset", "hf:org/set"], WorkloadSettings("hf", hub=HubSettings("org/set"))),
        (["--dataset", "hf:org/set:test", "--hf-subset", "s", "--prompt-column", "p",
          "--answer-column", "a"],
         WorkloadSettings("hf", hub=HubSettings("org/set", "test", "s", "p", "a"))),
        (["--dataset-name", "hf", "--dataset-path", "org/set", "--hf-split", "test"],
         WorkloadSettings("hf", hub=HubSettings("org/set", "test"))),
    ],
)  # fmt: skip
def test_options_give_settings(arguments, settings):
    assert parsed(*arguments) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mmlu"], "sharegpt, sharegpt-hub, synthetic, prefix, trace, jsonl or hf"),
        (["--dataset", "hf"], r"hf:NAME\[:SPLIT\]; got 'hf'"),
        (["--dataset", "hf:"], "with a name and a split"),
        (["--dataset", "hf:a:"], "with a name and a split"),
        (["--dataset", "hf:a", "--dataset-path", "b"], "got 'hf:a'"),
        (["--dataset", "hf:a:b", "--hf-split", "c"], "both give the split"),
        (["--dataset", "sharegpt-hub", "--dataset-path", "x"], "leave out --dataset-path"),
        (["--dataset", "synthetic", "--dataset-path", "x"], "leave out --dataset-path"),
        (["--dataset", "trace"], "needs --trace-path"),
        (["--dataset", "jsonl"], "needs --dataset-path"),
        (["--dataset", "trace", "--trace-path", "a", "--dataset-path", "b"], "give one"),
        (["--multi-turn", "-1"], "0 .all turns. or more"),
        (["--think-time", "3"], "--multi-turn; give both"),
        (["--dataset", "random", "--multi-turn"], "--multi-turn is for --dataset sharegpt or"),
        (["--dataset", "random", "--use-chat-template"], "not synthetic; leave it out"),
        (["--input-len", "3"], "--random-input-len is for --dataset synthetic or prefix"),
        (["--dataset", "random", "--num-prefixes", "3"], "for --dataset prefix, not synthetic"),
        (["--trace-speed", "3"], "for --dataset trace or jsonl, not sharegpt"),
        (["--prompt-column", "a"], "for --dataset hf, not sharegpt"),
        (["--dataset", "random", "--random-output-len", "3", "--output-len", "4"], "differ"),
        (["--dataset", "random", "--random-sigma", "1"], "lognormal; give both"),
        (["--max-output-length", "-1"], "max_output_length"),
        (["--min-input-length", "9", "--max-input-length", "8"], "min_input_length"),
        (["--min-input-length", "0"], "min_input_length: 1 or more"),
        (["--min-input-length", "2000"], "above max_input_length"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        parsed(*arguments)


@pytest.fixture
def files(tmp_path):
    """One file of each kind, and the settings that read it."""
    sharegpt = tmp_path / "sharegpt.json"
    talk = conversation("hello there", "general words")
    talk["conversations"] *= 2
    sharegpt.write_text(json.dumps([talk, conversation("another", "answers")]))
    trace = tmp_path / "trace.jsonl"
    row = {"timestamp": 5, "input_length": 700, "output_length": 9, "hash_ids": [3, 4]}
    trace.write_text(json.dumps(row))
    jsonl = tmp_path / "own.jsonl"
    jsonl.write_text('{"prompt": "a", "max_tokens": 2}\n{"prompt": "b", "max_tokens": 2}')
    lengths = LengthSettings(20, 5, range_ratio=0.5)
    return [
        WorkloadSettings(path=sharegpt),
        WorkloadSettings(path=sharegpt, multi_turn=MultiTurn(0, 1.0)),
        WorkloadSettings("synthetic", lengths=lengths),
        WorkloadSettings("prefix", lengths=lengths, prefixes=SharedPrefixes(9, 2)),
        WorkloadSettings("trace", trace),
        WorkloadSettings("jsonl", jsonl),
    ]


def test_the_seed_fixes_every_request_and_processes_get_the_same(files, tokenizer):
    digests = []
    for settings in files:
        made = build_workload(settings, tokenizer, 6, 3)
        again = pickle.loads(pickle.dumps(build_workload(settings, tokenizer, 6, 3)))
        assert again == made
        assert again.digest() == made.digest()
        assert build_workload(settings, tokenizer, 6, 4).digest() != made.digest()
        digests.append(made.digest())
    assert len(set(digests)) == len(files)


def test_first_turns_are_those_that_were_always_asked(files, tokenizer):
    settings = files[0]
    made = build_workload(settings, tokenizer, 5, 7)

    def read(conversations):
        return prompts_from(conversations, ShareGPTRules(), tokenizer)

    chosen = select(read_sharegpt(settings.path), read, 5, 7, repeat=True)
    assert made.prompts == chosen.prompts
    assert (made.distinct, made.most_uses) == (chosen.distinct, chosen.most_uses)
    assert made.description == chosen.describe()


def test_the_sample_is_the_default(tokenizer):
    assert len(build_workload(WorkloadSettings(), tokenizer, 3, 0).prompts) == 3


def test_less_than_one_request_is_refused(tokenizer):
    with pytest.raises(UsageError, match="1 or more; got 0"):
        build_workload(WorkloadSettings(), tokenizer, 0, 0)


BASE = Session("s", (Prompt("p", "text", (1, 2), 3, messages=(("user", "text"),)),), (0.0,), 1.0)


@pytest.mark.parametrize(
    "other",
    [
        Session("t", BASE.turns, BASE.delays, BASE.due),
        Session("s", BASE.turns, (1.0,), BASE.due),
        Session("s", BASE.turns, BASE.delays, None),
        Session("s", BASE.turns, BASE.delays, 0.0),
        *(
            Session("s", (prompt,), BASE.delays, BASE.due)
            for prompt in (
                Prompt("q", "text", (1, 2), 3, messages=(("user", "text"),)),
                Prompt("p", "texts", (1, 2), 3, messages=(("user", "text"),)),
                Prompt("p", "text", (1, 3), 3, messages=(("user", "text"),)),
                Prompt("p", "text", (1, 2), 4, messages=(("user", "text"),)),
                Prompt("p", "text", (1, 2), 3, messages=(("system", "text"),)),
                Prompt("p", "text", (1, 2), 3, messages=(("usert", "ext"),)),
                Prompt("p", "text", (1, 2), 3),
            )
        ),
    ],
)
def test_the_digest_tells_requests_apart(other):
    assert Workload((BASE,), 1, 1, "x").digest() != Workload((other,), 1, 1, "x").digest()


def test_the_digest_is_of_the_requests_and_their_order():
    other = Session("t", BASE.turns, BASE.delays, BASE.due)
    digest = Workload((BASE, other), 1, 2, "x").digest()
    assert digest == Workload((BASE, other), 2, 1, "another description").digest()
    assert digest != Workload((other, BASE), 1, 2, "x").digest()
    assert len(digest) == 64
