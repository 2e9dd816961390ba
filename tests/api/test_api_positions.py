"""A model that learned each of its positions: requests end where these do."""

from dataclasses import replace

import grpc
import pytest

from protos import orchestrator_pb2 as pb
from server.api import ServerConfig
from server.api.ask import Ask, Names
from server.api.prompt import fit_prompt
from tests.api.served import by_ids, serving
from tests.scheduler.small_engine import SmallEngine

POSITIONS = 20


@pytest.fixture(scope="module")
def served():
    """Would take prompts of 50 tokens if the model did."""
    engine = SmallEngine()
    engine.shape = replace(engine.shape, positions=POSITIONS)
    with serving(engine, None, max_prompt_length=50) as (served, _):
        yield served


def test_a_longer_prompt_is_refused(served):
    with pytest.raises(grpc.RpcError) as caught:
        served.decode(by_ids([1] * (POSITIONS + 1), 1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    expected = "has 21 tokens; at most 20 are allowed (the positions that the model has)"
    assert expected in caught.value.details()


@pytest.mark.parametrize("prompt", [1, 17, POSITIONS])
def test_a_longer_answer_ends_with_length(served, prompt):
    """The last token is not read any more: it needs no position."""
    answer = served.decode(by_ids([1] * prompt, 100))
    assert len(answer.ids) == POSITIONS - prompt + 1
    assert answer.finish == pb.FINISH_REASON_LENGTH


def test_what_fits_is_left_alone(served):
    assert len(served.decode(by_ids([1] * 10, 11)).ids) == 11
    assert len(served.decode(by_ids([1] * 10, 3)).ids) == 3


@pytest.mark.parametrize(("rolling", "cache", "room"), [(True, 8, 16), (False, 12, 7)])
def test_an_answer_that_nobody_bounds(rolling, cache, room):
    """Ends with the positions, or with a cache that does not roll."""
    shape = replace(SmallEngine(cache_length=cache).shape, positions=POSITIONS)
    config = ServerConfig(rolling=rolling, default_max_tokens=100)
    ask = Ask(Names("prompt", "prompt"), [1] * 5, None)
    assert fit_prompt([1] * 5, ask, None, config, shape).max_tokens == room
