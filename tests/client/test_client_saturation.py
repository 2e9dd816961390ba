"""The search for the highest rate: as pure logic, and against servers that get slower with load."""

import json
import math
import signal
from collections.abc import Callable

import pytest
from client_rig import wait_for
from hypothesis import assume, given
from hypothesis import strategies as st
from load_rig import chatting, conversations, load_command, running

from client.benchmark import main
from client.errors import UsageError
from client.load.saturation import Probe, Search, SearchSettings, knee_of

RATES = st.floats(0.01, 1000)


@st.composite
def searches(draw: Callable, **fixed) -> Search:
    start = draw(RATES)
    most = draw(st.one_of(st.just(math.inf), st.floats(start, 1e5)))
    found = {
        "start_rate": start,
        "max_rate": most,
        "precision": draw(st.floats(0.01, 0.5)),
        "probe_seconds": draw(st.floats(1, 120)),
        "most_probes": draw(st.integers(3, 40)),
    }
    return Search(SearchSettings(**(found | fixed)))


def run(search: Search, capacity: float, client: float = math.inf, hiccup: int = -1) -> Search:
    """Searches with a server of a capacity and a client of another; one probe may hiccup."""
    while (rate := search.next_rate()) is not None:
        assert len(search.probes) < 200
        ours = rate > client or len(search.probes) == hiccup
        search.probes.append(Probe(rate, rate <= capacity and not ours, 1.0, ours))
    return search


@given(searches(), RATES)
def test_what_is_found_is_below_the_capacity_and_within_the_precision(search, capacity):
    settings = run(search, capacity).settings
    assert len(search.probes) <= settings.most_probes
    rates = [probe.rate for probe in search.probes]
    assert rates[0] == settings.start_rate
    assert min(rates) >= settings.lowest_rate * (1 - 1e-9)
    assert max(rates) <= settings.max_rate
    assert not search.limited
    if search.highest is None:
        assert capacity < settings.start_rate
        assert len(rates) == settings.most_probes or capacity < settings.lowest_rate
        return
    assert search.highest <= capacity
    if search.missed is not None:
        assert capacity < search.missed
    if not search.settled:
        assert len(rates) == settings.most_probes
    elif search.missed is None:
        assert search.highest == settings.max_rate
    else:
        assert search.missed / search.highest <= 1 + settings.precision


@given(searches(most_probes=60), RATES)
def test_with_runs_enough_the_capacity_is_found(search, capacity):
    settings = search.settings
    assume(capacity >= settings.lowest_rate)
    run(search, capacity)
    assert search.settled
    assert search.highest == pytest.approx(
        min(capacity, settings.max_rate), rel=settings.precision + 1e-9
    )


@given(searches(most_probes=60), RATES, RATES)
def test_where_the_client_is_the_limit_it_says_so(search, capacity, client):
    run(search, capacity, client)
    highest, missed = search.highest, search.missed
    assert highest is None or highest <= min(capacity, client)
    assert search.limited == (missed is not None and missed > client)
    # It was asked twice there, as it may have been a hiccup.
    if search.limited:
        assert sum(probe.rate == missed for probe in search.probes) == 2


@given(searches(most_probes=60), RATES, st.integers(0, 20))
def test_a_hiccup_changes_nothing(search, capacity, hiccup):
    undisturbed = run(Search(search.settings), capacity)
    assume(hiccup < len(undisturbed.probes))
    run(search, capacity, hiccup=hiccup)
    assert (search.highest, search.missed) == (undisturbed.highest, undisturbed.missed)
    assert not search.limited


def test_a_server_that_never_meets_the_level_ends_the_search_soon():
    search = run(Search(SearchSettings(start_rate=1.0, probe_seconds=30)), capacity=0.0)
    assert [probe.rate for probe in search.probes] == [1, 0.5, 0.25, pytest.approx(1 / 6)]
    assert search.highest is None
    # No probe takes more than four times as long as it should.
    settings = search.settings
    assert all(settings.requests(each.rate) / each.rate <= 120.1 for each in search.probes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start_rate": 0.0}, "--request-rate"),
        ({"start_rate": 2.0, "max_rate": 1.0}, "--max-rate"),
        ({"max_rate": math.nan}, "--max-rate"),
        ({"good_share": 0.0}, "--good-share"),
        ({"good_share": 1.1}, "--good-share"),
        ({"precision": 1.0}, "--search-precision"),
        ({"probe_seconds": math.inf}, "--probe-seconds"),
        ({"most_probes": 2}, "--most-probes"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(UsageError, match=message):
        SearchSettings(**wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--saturation"], "--goodput ttft:500"),
        (["--saturation", "--goodput", "ttft:1", "--duration", "5", "--request-rate", "1"],
         "--duration: --saturation chooses"),
        (["--saturation", "--goodput", "ttft:1", "--num-prompts", "5"], "--num-prompts"),
        (["--saturation", "--goodput", "ttft:1", "--most-probes", "1"], "3 or more"),
        (["--probe-seconds", "5", "--search-precision", "0.1"],
         "--probe-seconds, --search-precision: only with --saturation"),
    ],
)  # fmt: skip
def test_options_that_contradict_the_search(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@given(st.lists(st.tuples(RATES, RATES), min_size=3, max_size=12), RATES, RATES)
def test_a_knee_is_one_of_the_rates_whatever_the_units(points, wider, slower):
    assume(len({rate for rate, _ in points}) == len(points))
    knee = knee_of(points)
    assert knee == knee_of(points[::-1])
    assert knee is None or knee in dict(points)
    scaled = knee_of([(rate * wider, latency * slower) for rate, latency in points])
    assert (scaled is None) == (knee is None) or _close_call(points)
    if knee is not None and not _close_call(points):
        assert scaled == pytest.approx(knee * wider)


def _close_call(points: list[tuple[float, float]]) -> bool:
    """Whether two rates are about as far below the diagonal, or the best is about on it."""
    ordered = sorted(points)
    low, high, floor = ordered[0][0], ordered[-1][0], ordered[0][1]
    top = max(latency for _, latency in points)
    if math.isclose(top, floor, rel_tol=1e-6) or math.isclose(low, high, rel_tol=1e-6):
        return True
    below = sorted((x - low) / (high - low) - (y - floor) / (top - floor) for x, y in points)
    return below[-1] - below[-2] < 1e-6 or abs(below[-1]) < 1e-6


def test_the_knee_is_where_latency_leaves_the_floor():
    latency = {1: 100, 2: 101, 4: 102, 8: 105, 16: 110, 20: 900, 24: 1700}
    assert knee_of(list(latency.items())) == 16
    assert knee_of([(1, 5), (2, 5), (3, 5)]) is None
    assert knee_of([(1, 5), (2, 9)]) is None


def test_what_the_client_spoiled_is_no_part_of_the_knee():
    probes = [Probe(rate, True, 100.0 + rate) for rate in (1.0, 2.0, 4.0)]
    spoiled = Search(SearchSettings(), [*probes, Probe(8.0, False, 9e9, ours=True)])
    assert spoiled.knee == Search(SearchSettings(), probes).knee


SEARCH = (
    *("--backend", "openai-chat", "--saturation", "--goodput", "e2el:400", "--good-share", "0.9"),
    *("--arrivals", "constant", "--request-rate", "16", "--probe-seconds", "1"),
    *("--search-precision", "0.45", "--connect-timeout", "1"),
)  # fmt: skip


def curve_of(folder) -> dict:
    """The curve file of a search; empty while there is none."""
    paths = list((folder / "runs").glob("loadstone-curve-*.json"))
    assert len(paths) <= 1
    return json.loads(paths[0].read_text()) if paths else {}


def test_the_capacity_of_a_server_is_found(tmp_path, tokenizer_path):
    """2 slots of 100 ms are 20 requests a second."""
    with chatting("--slots", "2", "--seconds", "0.1") as server:
        command = load_command(tmp_path, tokenizer_path, server.port, conversations(40), *SEARCH)
        with running(command) as process:
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    curve = curve_of(tmp_path)
    assert curve["format"] == "loadstone-curve-1"
    rates = [point["rate"] for point in curve["points"]]
    assert rates == sorted(rates)
    assert rates == [16, pytest.approx(16 * math.sqrt(2)), 32]
    assert [point["met"] for point in curve["points"]] == sorted(
        (point["met"] for point in curve["points"]), reverse=True
    )
    assert 16 <= curve["highest_rate"] < 32
    assert curve["settled"] and not curve["limited_by_client"]
    assert curve["service_level"] == {"e2el": 400}
    for point in curve["points"]:
        record = json.loads((tmp_path / "runs" / point["record"]).read_text())
        assert record["request_rate"] == point["rate"]
        assert record["goodput_share"] == point["figures"]["goodput_share"]
    seeds = {
        json.loads((tmp_path / "runs" / point["record"]).read_text())["seed"]
        for point in curve["points"]
    }
    assert len(seeds) == len(rates)  # other prompts each time
    assert f"{curve['highest_rate']:.3g} requests/s" in out
    assert "Service level by rate" in out


@pytest.mark.parametrize("end", ["the server dies", "Ctrl-C"])
def test_what_a_search_measured_is_kept(tmp_path, tokenizer_path, end):
    with chatting("--slots", "2", "--seconds", "0.1") as server:
        command = load_command(tmp_path, tokenizer_path, server.port, conversations(40), *SEARCH)
        with running(command) as process:
            wait_for(lambda: len(curve_of(tmp_path).get("points", ())) == 1)
            if end == "Ctrl-C":
                process.send_signal(signal.SIGINT)
            else:
                server.process.kill()
            out, err = process.communicate(timeout=30)
    assert process.returncode == (130 if end == "Ctrl-C" else 2), err
    assert "Traceback" not in err
    curve = curve_of(tmp_path)
    assert curve["points"][0]["rate"] == 16
    assert curve["points"][0]["met"]
    assert "Service level by rate" in out


def test_a_level_that_no_rate_keeps(tmp_path, tokenizer_path):
    with chatting("--seconds", "0.1") as server:
        command = load_command(
            tmp_path, tokenizer_path, server.port, conversations(40), *SEARCH,
            *("--goodput", "e2el:50", "--request-rate", "40", "--probe-seconds", "0.25"),
        )  # fmt: skip
        with running(command) as process:
            out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    curve = curve_of(tmp_path)
    points = curve["points"]
    # On a busy machine the client may be the limit of a probe, which is then repeated once.
    assert {point["rate"] for point in points} == {20, 40}
    assert len(points) - 2 <= sum(point["verdict"] == "INVALID" for point in points)
    assert curve["highest_rate"] is None
    assert "none" in out
