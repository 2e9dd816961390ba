"""The comparison of runs, as a command on files."""

import json
import re
import subprocess
import sys

import pytest
from client_rig import ENVIRONMENT, conversation
from client_runs import record_json, requests, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.compare import main
from client.results.comparison import Verdict, judge
from client.results.comparison_formats import READABLE
from client.results.comparison_rows import read_rows
from client.results.goodput import ServiceLevel
from client.results.metrics import figures
from client.results.report import FORMAT
from client.results.rows import row
from client.results.vllm import describe_as_vllm


@pytest.fixture
def compared(capsys):
    """Runs the command: `status, document = compared(a, b, "--flag")`, the document from --json."""

    def run(*arguments):
        status = main([*map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def verdicts(document, at=0):
    entries = document["comparisons"][at]["metrics"]
    return {entry["metric"]: entry["verdict"] for entry in entries}


def entry(document, metric):
    return next(e for e in document["comparisons"][0]["metrics"] if e["metric"] == metric)


def test_the_format_of_a_record_today_can_be_read():
    assert FORMAT in READABLE


def test_the_command_prints_a_table_and_its_status(tmp_path):
    first = write_run(tmp_path / "loadstone-a.json", requests())
    second = write_run(tmp_path / "loadstone-b.json", requests(factor=1.3))
    command = [sys.executable, "-m", "client.compare", str(first), str(second)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f"A  {first} (1 run), the baseline" in done.stdout
    found = re.search(r"median_e2el_ms +\S+ +\S+ +(\S+) +(\S+ - \S+) +(\w+)", done.stdout)
    assert found.groups() == ("1.300", "1.300 - 1.300", "worse")
    assert "B is worse than A: " in done.stdout
    assert "paired, the requests being the same" in done.stdout
    assert done.stderr == ""


def test_a_run_against_itself_is_the_same(tmp_path, compared):
    run = write_run(tmp_path / "loadstone-a.json", requests(), level=ServiceLevel(ttft=200))
    status, document = compared(run, run)
    assert status == 0
    assert {e["ratio"] for e in document["comparisons"][0]["metrics"]} == {1.0}
    assert set(verdicts(document).values()) == {"same"}
    assert document["comparisons"][0]["warnings"] == []


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(factor=st.floats(1.07, 4), seed=st.integers(0, 9))
def test_slower_latencies_are_a_regression_and_faster_ones_are_not(
    tmp_path, compared, factor, seed
):
    fast = write_run(tmp_path / "loadstone-fast.json", requests(seed=seed))
    slow = write_run(tmp_path / "loadstone-slow.json", requests(seed=seed, factor=factor))
    status, document = compared(fast, slow)
    assert status == 1
    found = verdicts(document)
    for metric in ("median_ttft_ms", "median_tpot_ms", "median_itl_ms", "median_e2el_ms"):
        assert found[metric] == "worse"
    status, document = compared(slow, fast)
    assert status == 0
    assert verdicts(document)["median_e2el_ms"] == "better"


def test_what_is_within_the_threshold_is_no_regression(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests())
    second = write_run(tmp_path / "loadstone-b.json", requests(factor=1.04))
    status, document = compared(first, second)
    assert status == 0
    assert verdicts(document)["median_e2el_ms"] == "same"
    status, _ = compared(first, second, "--threshold", "0.03")
    assert status == 1


@pytest.mark.parametrize(
    ("ratio", "interval", "higher", "expected"),
    [
        (0.8, (0.7, 0.9), True, Verdict.WORSE),
        (0.8, (0.7, 0.9), False, Verdict.BETTER),
        (1.2, (1.1, 1.3), True, Verdict.BETTER),
        (1.2, (1.1, 1.3), False, Verdict.WORSE),
        (1.2, (0.9, 1.5), False, Verdict.UNCLEAR),
        (1.04, (1.01, 1.2), False, Verdict.UNCLEAR),
        (1.01, (0.97, 1.04), False, Verdict.SAME),
        (1.04, (1.03, 1.045), False, Verdict.SAME),
        (1.2, None, False, Verdict.UNCLEAR),
        (1.0, None, False, Verdict.SAME),
    ],
)
def test_verdicts(ratio, interval, higher, expected):
    assert judge(ratio, interval, higher, 0.05) is expected


def test_repeats_in_folders_give_an_interval_from_repeats(tmp_path, compared):
    for seed in range(4):
        for side, factor in (("a", 1.0), ("b", 1.5)):
            records = requests(200, factor=factor, seed=seed + (4 if side == "b" else 0))
            write_run(tmp_path / side / f"loadstone-{seed}.json", records, seed=seed)
    (tmp_path / "a" / "loadstone-0.outputs.json").write_text("[]")
    (tmp_path / "a" / "JetStream-0.json").write_text('{"metrics": {}, "dimensions": {}}')
    status, document = compared(tmp_path / "a", tmp_path / "b")
    assert status == 1
    assert len(document["baseline"]["runs"]) == 4
    slower = entry(document, "median_ttft_ms")
    assert slower["interval_from"] == "repeats"
    assert slower["interval"][0] < 1.5 < slower["interval"][1]
    assert slower["verdict"] == "worse"
    status, document = compared(tmp_path / "a", str(tmp_path / "a" / "loadstone-[0-3].json"))
    assert status == 0
    assert entry(document, "median_ttft_ms")["ratio"] == 1


def test_one_run_against_repeats_says_how_it_is_taken(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests())
    for seed in range(3):
        write_run(tmp_path / "b" / f"loadstone-{seed}.json", requests(seed=seed))
    _, document = compared(first, tmp_path / "b")
    assert "taken to vary as the other" in document["comparisons"][0]["notes"][0]
    assert entry(document, "output_throughput")["interval_from"] == "repeats"


def test_a_folder_of_several_settings_is_refused(tmp_path, capsys):
    write_run(tmp_path / "loadstone-a.json", requests(), request_rate=4.0)
    write_run(tmp_path / "loadstone-b.json", requests(), request_rate=8.0)
    assert main([str(tmp_path), str(tmp_path)]) == 2
    assert "request_rate 4 and 8" in capsys.readouterr().err


def test_several_sides_each_meet_the_first(tmp_path, compared):
    paths = [
        write_run(tmp_path / f"loadstone-{at}.json", requests(factor=factor))
        for at, factor in enumerate((1.0, 1.0, 1.3, 0.7))
    ]
    status, document = compared(*paths)
    assert status == 1
    assert [each["regressions"] != [] for each in document["comparisons"]] == [False, True, False]


def test_failures_are_a_regression_however_fast_the_rest_is(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests(100))
    second = write_run(tmp_path / "loadstone-b.json", requests(100, factor=0.5, failed=40))
    status, document = compared(first, second)
    assert status == 1
    assert document["comparisons"][0]["regressions"] == ["completed_share"]
    assert any("40 requests failed" in each for each in document["comparisons"][0]["warnings"])


def test_nothing_completed_is_a_regression_even_without_rows(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests(20), with_rows=False)
    second = write_run(tmp_path / "loadstone-b.json", requests(20, failed=20), with_rows=False)
    status, document = compared(first, second)
    assert status == 1
    assert "output_throughput" in document["comparisons"][0]["regressions"]


def test_without_repeats_or_rows_it_says_that_there_is_no_interval(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests(), with_rows=False)
    second = write_run(tmp_path / "loadstone-b.json", requests(factor=3), with_rows=False)
    status, document = compared(first, second)
    assert status == 0
    assert entry(document, "median_e2el_ms")["interval"] is None
    assert "requests of a run were not kept" in document["comparisons"][0]["notes"][0]


def test_rows_of_another_run_give_no_interval(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests())
    second = write_run(tmp_path / "loadstone-b.json", requests(factor=1.3))
    write_run(tmp_path / "other.json", requests(factor=7)).with_suffix(".jsonl").rename(
        tmp_path / "loadstone-b.jsonl"
    )
    status, document = compared(first, second)
    assert status == 0
    assert entry(document, "median_e2el_ms")["interval"] is None


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"seed": 1}, "seed differs: 0 against 1"),
        ({"request_rate": 8}, "request_rate differs: inf against 8"),
        ({"model_id": "other"}, "model_id differs: org/tiny against other"),
        ({"workload_digest": "bb"}, "workload_digest differs: aa against bb"),
        ({"host": {"cpu": "a processor", "cores": 8}}, "host.cores differs: 2 against 8"),
        ({"settings": {"rules": {"max_output_length": 9}}}, "_length differs: 32 against 9"),
        ({"verdict": "INVALID", "verdict_reasons": ["send lag"]}, "is INVALID: send lag"),
        ({"interrupted": True}, "was interrupted"),
        ({"level": ServiceLevel(ttft=9)}, "goodput differs: ttft:500 against ttft:9"),
    ],
)
def test_what_makes_a_comparison_doubtful_is_said(tmp_path, compared, changes, part):
    same = {"workload_digest": "aa", "level": ServiceLevel(ttft=500)}
    first = write_run(tmp_path / "loadstone-a.json", requests(), **same)
    second = write_run(tmp_path / "loadstone-b.json", requests(), **(same | changes))
    _, document = compared(first, second)
    (warning,) = document["comparisons"][0]["warnings"]
    assert part in warning
    assert main([str(first), str(second)]) in (0, 1)


def test_runs_of_a_fixed_time_may_differ_in_how_many_they_sent(tmp_path, compared):
    for at, count in enumerate((40, 44)):
        write_run(tmp_path / f"loadstone-{at}.json", requests(count), num_prompts_asked=1000)
    _, document = compared(tmp_path, tmp_path)
    assert document["comparisons"][0]["warnings"] == []


def test_the_same_workload_from_another_file_is_the_same(tmp_path, compared):
    def run(name, path, digest):
        settings = {"workload": {"dataset_path": path}}
        return write_run(tmp_path / name, requests(), settings=settings, workload_digest=digest)

    first = run("loadstone-a.json", "here.json", "aa")
    _, document = compared(first, run("loadstone-b.json", "there.json", "aa"))
    assert document["comparisons"][0]["warnings"] == []
    _, document = compared(first, run("loadstone-c.json", "there.json", "bb"))
    assert len(document["comparisons"][0]["warnings"]) == 2


def test_goodput_can_be_counted_anew(tmp_path, compared):
    first = write_run(tmp_path / "loadstone-a.json", requests(200))
    second = write_run(tmp_path / "loadstone-b.json", requests(200, factor=1.5))
    _, document = compared(first, second, "--metrics", "goodput_share", "--goodput", "ttft:250")
    found = entry(document, "goodput_share")
    for side, records in (("baseline", requests(200)), ("other", requests(200, factor=1.5))):
        waits = [record.arrivals.times[0] - record.scheduled for record in records]
        assert found[side] == sum(wait <= 0.25 for wait in waits) / 200
    assert found["interval"][1] < 1
    assert found["verdict"] == "worse"


def test_figures_are_chosen_by_name_or_pattern(tmp_path, compared):
    run = write_run(tmp_path / "loadstone-a.json", requests())
    _, document = compared(run, run, "--metrics", "output_throughput,p9*_ttft_ms")
    assert list(verdicts(document)) == ["output_throughput", "p90_ttft_ms", "p99_ttft_ms"]


def test_vllms_result_is_read(tmp_path, compared):
    ours, theirs = requests(), requests(factor=1.3)
    first = write_run(tmp_path / "loadstone-a.json", ours)
    second = tmp_path / "vllm.json"
    rows = [row(record, False) for record in theirs]
    second.write_text(json.dumps(describe_as_vllm(record_json(theirs), rows, detailed=True)))
    status, document = compared(first, second)
    assert status == 1
    found = entry(document, "median_e2el_ms")
    assert found["ratio"] == pytest.approx(1.3)
    # It names no prompts, so the requests are not paired.
    assert found["interval"][0] < 1.3 < found["interval"][1]
    assert document["comparisons"][0]["source"] == ["vllm"]
    assert any("vLLM's form" in each for each in document["comparisons"][0]["warnings"])


def test_appended_results_of_vllm_are_repeats(tmp_path, compared):
    path = tmp_path / "appended.json"
    documents = [describe_as_vllm(record_json(requests(seed=s)), [], False) for s in range(3)]
    path.write_text("\n".join(map(json.dumps, documents)))
    _, document = compared(path, path)
    assert len(document["baseline"]["runs"]) == 3
    assert entry(document, "median_ttft_ms")["interval_from"] == "repeats"


def test_jetstreams_tpot_meets_only_its_own(tmp_path, compared):
    records = requests()
    metrics = {"mean_TPOT_ms": 30.0, "median_ttft_ms": 100.0, "request_rate": 0, "duration": 9.0}
    document = {"metrics": metrics, "dimensions": {"model_id": "org/tiny", "date": "x"}}
    theirs = tmp_path / "JetStream.json"
    theirs.write_text(json.dumps(document))
    ours = write_run(tmp_path / "loadstone.json", records, jetstream=document)
    _, found = compared(ours, theirs, "--metrics", "*")
    compared_keys = {
        e["metric"] for e in found["comparisons"][0]["metrics"] if e["ratio"] is not None
    }
    assert "mean_TPOT_ms" in compared_keys
    assert "mean_tpot_ms" not in compared_keys
    assert not any("request_rate" in each for each in found["comparisons"][0]["warnings"])


def test_requests_come_back_from_their_rows(tmp_path):
    records = requests(12, failed=3)
    path = write_run(tmp_path / "loadstone-a.json", records).with_suffix(".jsonl")
    again = read_rows(path)
    assert [record.outcome for record in again] == [record.outcome for record in records]
    before, after = figures(records, 30.0), figures(again, 30.0)
    assert before.pop("failures") == after.pop("failures") == {"timeout": 3}
    assert after == pytest.approx(before, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is no result of a run"),
        ('{"format": "loadstone-run-99"}', "has the format loadstone-run-99"),
        ('{"format": "loadstone-sweep-1"}', "is no result of a run"),
    ],
)
def test_a_file_that_is_no_record_is_told_so(tmp_path, capsys, text, part):
    good, bad = write_run(tmp_path / "loadstone-a.json", requests()), tmp_path / "loadstone-b.json"
    bad.write_text(text)
    assert main([str(good), str(bad)]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["absent*.json"], "absent*.json: no such file or folder"),
        ([], "2 to 26 sides"),
        (["{run}", "--threshold", "1.5"], "--threshold"),
        (["{run}", "--metrics", "speed"], "no figure|neither side has a figure 'speed'"),
        (["{run}", "--metrics", "num_prompts"], "better high or low"),
        (["{run}", "--goodput", "speed:1"], "no objective 'speed'"),
        (["{rows}"], "give"),
        (["{empty}"], "no result of a run in it"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, part):
    run = write_run(tmp_path / "loadstone-a.json", requests())
    (tmp_path / "empty").mkdir()
    places = {"run": run, "rows": run.with_suffix(".jsonl"), "empty": tmp_path / "empty"}
    assert main([str(run), *(argument.format(**places) for argument in arguments)]) == 2
    err = capsys.readouterr().err
    assert re.search(part, err) or part in err
    assert err.count("\n") == 1


def test_rows_that_are_none_are_told_by_line(tmp_path, capsys):
    run = write_run(tmp_path / "loadstone-a.json", requests())
    with run.with_suffix(".jsonl").open("a") as file:
        file.write('{"index": 40}\n')
    assert main([str(run), str(run)]) == 2
    assert "line 41 is not the row of a request" in capsys.readouterr().err


def test_records_of_the_benchmark_itself_compare(server, benchmark, compared):
    data = [conversation("go please", "a" * 8, str(number)) for number in range(12)]
    done = benchmark(server.port, data, "--num-prompts", "12")
    (path,) = done.folder.glob("loadstone-*.json")
    status, document = compared(path, done.folder)
    assert status == 0
    found = entry(document, "median_ttft_ms")
    assert (found["ratio"], found["interval"]) == (1.0, [1.0, 1.0])
