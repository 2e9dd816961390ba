"""The server most tests of the API speak to."""

import pytest

from tests.api.served import BYTES, EOS, VOCAB, serving
from tests.scheduler.small_engine import SmallEngine, echo


@pytest.fixture(scope="module")
def orchestrator():
    """A running server. A test module may put another server here, such as a real engine's."""
    engine = SmallEngine(vocab=VOCAB, eos_ids=frozenset({EOS}), choose=echo, cache_length=64)
    limits = {"max_prompt_length": 50, "max_tokens": 60, "rolling": False}
    with serving(engine, BYTES, max_message_bytes=64 * 1024, **limits) as (served, _):
        yield served
