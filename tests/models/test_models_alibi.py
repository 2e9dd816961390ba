"""ALiBi's slopes."""

import numpy as np
import pytest

from server.models import alibi
from tests.models.plain import alibi as plain_slopes
from tests.models.tiny import tiny_spec


def test_a_power_of_two_gives_the_series_of_the_paper() -> None:
    slopes = alibi.slopes(tiny_spec("bloom", heads=8, kv_heads=8))
    assert np.allclose(np.ravel(slopes), [2.0**-n for n in range(1, 9)], rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 7, 12, 16, 20, 112])
def test_any_number_of_heads(heads: int) -> None:
    slopes = alibi.slopes(tiny_spec("bloom", heads=heads, kv_heads=heads))
    assert np.shape(slopes) == (heads, 1)
    assert np.allclose(np.ravel(slopes), plain_slopes(heads), rtol=1e-12)


def test_slopes_lie_as_the_heads_do() -> None:
    """Grouped heads: [K][G]."""
    slopes = alibi.slopes(tiny_spec("bloom", heads=8, kv_heads=2))
    assert np.shape(slopes) == (2, 4)
    assert np.allclose(np.ravel(slopes), plain_slopes(8), rtol=1e-12)


def test_other_positions_have_none() -> None:
    assert alibi.slopes(tiny_spec()) is None
