"""Traces: their lengths, times and shared blocks come back as requests."""

import json

import pytest

from client.errors import UsageError
from client.workloads.build import build_workload
from client.workloads.limits import Limits
from client.workloads.settings import WorkloadSettings
from client.workloads.trace import TraceSettings
from client.workloads.trace_file import TraceRow, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.0000000,12,5

"""
MOONCAKE = [
    {"timestamp": 27482, "input_length": 1300, "output_length": 52, "hash_ids": [46, 47, 48]},
    {"timestamp": 30535, "input_length": 1200, "output_length": 26, "hash_ids": [46, 47, 9]},
    {"timestamp": 30535, "input_length": 600, "output_length": 7, "hash_ids": [46, 10]},
    {"timestamp": 31000, "input_length": 600, "output_length": 7, "hash_ids": [46, 10]},
]


@pytest.fixture
def azure(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text(AZURE)
    return path


@pytest.fixture
def mooncake(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text("".join(json.dumps(row) + "\n" for row in MOONCAKE))
    return path


def workload(tokenizer, path, count=10, seed=0, limits=None, output_length=0, **trace):
    settings = WorkloadSettings(
        kind="trace",
        path=path,
        limits=limits or Limits(),
        output_length=output_length,
        trace=TraceSettings(**trace),
    )
    return build_workload(settings, tokenizer, count, seed)


def sizes(made):
    return [(len(prompt.token_ids), prompt.max_tokens) for prompt in made.prompts]


def test_an_azure_trace_is_read_by_time(azure):
    assert read_trace(azure) == [
        TraceRow(0.0, 374, 44),
        TraceRow(pytest.approx(1.31941), 12, 5),
        TraceRow(pytest.approx(4.314579), 396, 109),
    ]


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:00.017335+00:00", 0.007405),
        ("2024-05-10 00:00:00+02:00", "2024-05-10 00:00:00+00:00", 7200.0),
        ("1.5", "4", 2.5),
    ],
)
def test_other_ways_to_write_times(tmp_path, first, second, seconds):
    path = tmp_path / "a.csv"
    path.write_text(f"\ufeffTIMESTAMP,Model,ContextTokens,GeneratedTokens\r\n{first},m,3,4\r\n"
                    f"{second},m,5,6\r\n")  # fmt: skip
    assert read_trace(path) == [
        TraceRow(0.0, 3, 4),
        TraceRow(pytest.approx(seconds, abs=1e-6), 5, 6),
    ]


def test_requests_have_the_lengths_and_times_of_the_trace(tokenizer, azure):
    made = workload(tokenizer, azure)
    assert sizes(made) == [(374, 44), (12, 5), (396, 109)]
    assert [session.due for session in made.sessions] == pytest.approx([0.0, 1.31941, 4.314579])
    assert made.distinct == 3
    assert all(tuple(tokenizer.encode(p.text)) == p.token_ids for p in made.prompts)
    assert "3 of 3 requests of a trace" in made.description


def test_speed_and_scale_are_factors(tokenizer, azure):
    made = workload(tokenizer, azure, speed=2.0, scale=0.5)
    assert sizes(made) == [(187, 22), (6, 2), (198, 54)]
    assert made.sessions[-1].due == pytest.approx(4.314579 / 2)


def test_equal_blocks_are_equal_tokens_and_others_are_not(tokenizer, mooncake):
    made = workload(tokenizer, mooncake)
    one, two, three, four = (prompt.token_ids for prompt in made.prompts)
    assert sizes(made) == [(1300, 52), (1200, 26), (600, 7), (600, 7)]
    assert one[:1024] == two[:1024]
    assert one[:512] == three[:512]
    assert one[1024:1040] != two[1024:1040]
    assert one[512:528] != three[512:528]
    assert three == four
    assert (made.distinct, made.most_uses) == (3, 2)
    assert [session.due for session in made.sessions] == pytest.approx([0, 3.053, 3.053, 3.518])


def test_blocks_shrink_with_the_lengths(tokenizer, mooncake):
    one, two, three, _ = workload(tokenizer, mooncake, scale=0.25).prompts
    assert one.token_ids[:256] == two.token_ids[:256]
    assert one.token_ids[:128] == three.token_ids[:128]
    assert one.token_ids[256:272] != two.token_ids[256:272]


def test_tokens_after_the_last_block_are_a_requests_own(tokenizer, tmp_path):
    path = tmp_path / "short.jsonl"
    row = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1]}
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    one, two = (prompt.token_ids for prompt in workload(tokenizer, path).prompts)
    assert one[:512] == two[:512]
    assert one[512:] != two[512:]


def test_another_seed_gives_other_content(tokenizer, mooncake):
    one, other = (workload(tokenizer, mooncake, seed=seed) for seed in (0, 1))
    assert sizes(one) == sizes(other)
    assert one.prompts[0].token_ids[:20] != other.prompts[0].token_ids[:20]


def test_what_is_over_the_limits_is_cut_or_left_out_and_counted(tokenizer, mooncake):
    limits = Limits(None, 1250, 1210)
    made = workload(tokenizer, mooncake, limits=limits)
    assert sizes(made) == [(1209, 1), (1200, 10), (600, 7), (600, 7)]
    assert "2 cut to the limits" in made.description
    made = workload(tokenizer, mooncake, limits=limits, overlong="skip")
    assert sizes(made) == [(600, 7), (600, 7)]
    # Still relative to the first of the trace.
    assert made.sessions[0].due == pytest.approx(3.053)
    assert "2 over the limits left out" in made.description
    with pytest.raises(UsageError, match=r"4 are over --max-input-length"):
        workload(tokenizer, mooncake, limits=Limits(None, 10, None), overlong="skip")


def test_an_output_length_is_asked_of_all(tokenizer, mooncake):
    assert {size[1] for size in sizes(workload(tokenizer, mooncake, output_length=8))} == {8}


def test_requests_without_tokens_are_left_out(tokenizer, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,0,4\n2,5,0\n3,6,7\n")
    made = workload(tokenizer, path)
    assert sizes(made) == [(6, 7)]
    assert "2 without tokens left out" in made.description


def test_only_as_many_as_asked_the_first_by_time(tokenizer, azure):
    made = workload(tokenizer, azure, count=2)
    assert sizes(made) == [(374, 44), (12, 5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no trace"),
        ("a,b\n1,2\n", "TIMESTAMP,ContextTokens,GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\nnoon,3,4\n", "line 3: .*noon"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2\n", "line 2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,-2,3\n", "line 2: a length"),
        ('{"timestamp": 1}\n', "line 1: no input_length"),
        ('{"timestamp": 1, "input_length": 2.5, "output_length": 3}', "line 1: a length"),
        ('{"timestamp": NaN, "input_length": 2, "output_length": 3}', "line 1: a time"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 3}\n{', "line 2"),
        (
            '{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": [-1]}',
            "hash_ids are whole numbers",
        ),
        ('{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": 4}', "line 1"),
    ],
)
def test_wrong_files_are_named_with_the_line(tmp_path, content, message):
    path = tmp_path / "wrong"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_trace(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.csv"):
        read_trace(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    "wrong", [{"speed": 0.0}, {"scale": -1.0}, {"speed": float("nan")}, {"overlong": "drop"}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match="--trace-"):
        TraceSettings(**wrong)
