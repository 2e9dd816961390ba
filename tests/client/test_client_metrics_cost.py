"""Costs by plain arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.results.cost import ChipPrice, chip_price, cost_figures

AMOUNT = st.floats(0.01, 1e4)
FIGURES = {
    "duration": 1800.0,
    "completed": 500,
    "total_input_tokens": 300_000,
    "total_output_tokens": 100_000,
}


def test_costs_of_half_an_hour_on_four_chips():
    found = cost_figures(FIGURES | {"good_output_tokens": 25_000}, ChipPrice(1.2, 4))
    assert found["cost"] == pytest.approx(2.4)
    assert found["cost_per_million_output_tokens"] == pytest.approx(24)
    assert found["cost_per_million_total_tokens"] == pytest.approx(6)
    assert found["cost_per_1000_requests"] == pytest.approx(4.8)
    assert found["cost_per_million_good_output_tokens"] == pytest.approx(96)


def test_without_goodput_there_is_no_cost_of_it():
    found = cost_figures(FIGURES, ChipPrice(1.2))
    assert "cost_per_million_good_output_tokens" not in found


def test_nothing_out_has_no_cost_a_token():
    empty = FIGURES | {"completed": 0, "total_output_tokens": 0, "good_output_tokens": 0}
    found = cost_figures(empty | {"total_input_tokens": 0}, ChipPrice(1.2))
    assert found["cost"] > 0
    assert all(found[key] is None for key in found if key.startswith("cost_per_"))


@given(AMOUNT, st.integers(1, 512), AMOUNT)
def test_cost_grows_with_price_and_chips(price, chips, factor):
    once = cost_figures(FIGURES, ChipPrice(price, chips))
    more = cost_figures(FIGURES, ChipPrice(price * factor, chips * 2))
    key = "cost_per_million_output_tokens"
    assert more[key] == pytest.approx(once[key] * factor * 2)


def test_the_options_of_a_price():
    assert chip_price(None, None) is None
    assert chip_price(1.5, None) == ChipPrice(1.5, 1)
    assert chip_price(1.5, 8) == ChipPrice(1.5, 8)


@pytest.mark.parametrize(
    ("price", "chips", "part"),
    [
        (0.0, 1, "--chip-hour-price"),
        (-1.0, 1, "--chip-hour-price"),
        (float("nan"), 1, "--chip-hour-price"),
        (float("inf"), 1, "--chip-hour-price"),
        (1.0, 0, "--chips"),
        (None, 4, "give --chip-hour-price too"),
    ],
)
def test_a_wrong_price_is_told_so(price, chips, part):
    with pytest.raises(UsageError, match=part):
        chip_price(price, chips)
