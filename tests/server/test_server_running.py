"""The whole server, its own process and a real JAX engine, against good and bad requests.

The bad requests are those of the API's own tests, run again here: `test_a_bad_request_...` and the
others come in by import and use the `orchestrator` fixture of this module.
"""

import asyncio
import time

import grpc
import pytest

from protos import orchestrator_pb2 as pb
from tests.api.served import burst, by_ids, by_text, wait_until
from tests.api.test_api_bad_input import *  # noqa: F403
from tests.server.running import CACHE_LENGTH, MAX_PROMPT, SLOTS, Running, make_checkpoint, running

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="module", params=["rolling", "fixed"])
def server(request, checkpoint, tmp_path_factory):
    quantize = ["--quantize", "int8"] if request.param == "rolling" else []
    folder = tmp_path_factory.mktemp(request.param)
    with running(folder, checkpoint, *quantize, rolling=request.param == "rolling") as process:
        yield process


@pytest.fixture(scope="module")
def orchestrator(server):
    return server.served


def test_text_and_ids_give_the_same_tokens(server: Running):
    text = "The quick brown fox"
    answer = server.served.decode(by_text(text, 12, ignore_eos=True))
    assert len(answer.ids) == 12
    again = server.served.decode(by_text(text, 12, ignore_eos=True))
    assert again.ids == answer.ids


def test_a_prompt_longer_than_the_cache(server: Running):
    ids = [5 + n % 40 for n in range(3 * CACHE_LENGTH)]
    request = by_ids(ids, 8, ignore_eos=True)
    if server.served.rolling:
        assert len(server.served.decode(request).ids) == 8
        return
    with pytest.raises(grpc.RpcError) as refused:
        server.served.decode(request)
    assert refused.value.code() == INVALID
    assert str(CACHE_LENGTH) in refused.value.details()


def test_a_prompt_longer_than_allowed_names_the_limit_and_can_be_cut(server: Running):
    ids = [7] * (MAX_PROMPT + 1)
    with pytest.raises(grpc.RpcError) as refused:
        server.served.decode(by_ids(ids, 4))
    assert refused.value.code() == INVALID
    limit = MAX_PROMPT if server.served.rolling else CACHE_LENGTH
    assert str(limit) in refused.value.details()
    answer = server.served.decode(by_ids(ids, 4, truncate_prompt=True, ignore_eos=True))
    assert len(answer.ids) == 4
    assert answer.usage.truncated_tokens > 0


def test_the_times_of_the_start_are_told(server: Running):
    times = server.metrics()
    assert 0 < times["jetstream_model_load_time"] < times["jetstream_server_startup_latency"]


def test_a_cancelled_stream_frees_its_slot(server: Running):
    long = by_ids([9, 8, 7], 30_000 if server.served.rolling else 50, ignore_eos=True)
    calls = [server.served.stub.Decode(long, timeout=60) for _ in range(SLOTS)]
    for call in calls:
        next(call)
    for call in calls:
        call.cancel()
    wait_until(lambda: server.metrics()["jetstream_slots_used_percentage"] == 0, "slots are free")
    assert len(server.served.decode(by_ids([1, 2], 3, ignore_eos=True)).ids) == 3


def test_requests_side_by_side_equal_those_alone(server: Running):
    prompts = [[10 + n, 20, 30 + n] * (1 + n) for n in range(3 * SLOTS)]
    alone = [server.served.decode(by_ids(ids, 10, ignore_eos=True)).ids for ids in prompts]
    calls = [server.served.stub.Decode(by_ids(ids, 10, ignore_eos=True)) for ids in prompts]
    together = [
        [t for m in call for s in m.stream_content.samples for t in s.token_ids] for call in calls
    ]
    assert together == alone


def test_a_deadline_ends_a_request(server: Running):
    request = by_ids([3], 30_000 if server.served.rolling else 60, ignore_eos=True)
    started = time.monotonic()
    if server.served.rolling:
        with pytest.raises(grpc.RpcError) as ended:
            server.served.decode(request, timeout=0.5)
        assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 5
    wait_until(lambda: server.metrics()["jetstream_slots_used_percentage"] == 0, "slots are free")


def test_a_seed_repeats(server: Running):
    def ask(seed: int) -> list[int]:
        sampling = pb.Sampling(temperature=1.5, top_k=50, top_p=0.95, seed=seed)
        return server.served.decode(by_ids([4, 5], 16, sampling=sampling, ignore_eos=True)).ids

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


@pytest.mark.slow
def test_ten_thousand_requests_at_once(server: Running):
    """All are answered, and the server answers the next one."""
    outcomes = asyncio.run(burst(server.served.address, 10_000, timeout=200))
    assert outcomes == {"OK": 10_000}
    assert len(server.served.decode(by_ids([1, 2], 3, ignore_eos=True)).ids) == 3
