"""Bad requests against a server without a tokenizer, as with random weights."""

import pytest

from tests.api.served import serving
from tests.api.test_api_bad_input import ANY, BAD, NO_TOKENIZER, assert_refused
from tests.scheduler.small_engine import SmallEngine

WITHOUT_TOKENIZER = [bad for bad in BAD if bad.needs in (ANY, NO_TOKENIZER)]


@pytest.fixture(scope="module")
def served():
    """Takes token ids only."""
    with serving(SmallEngine(), None, max_prompt_length=50) as (served, _):
        yield served


@pytest.mark.parametrize("bad", WITHOUT_TOKENIZER, ids=lambda bad: bad.name)
def test_a_bad_request_is_refused_and_the_server_lives(served, bad):
    assert_refused(served, bad)
