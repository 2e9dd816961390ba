"""Values between a candidate and its examiner."""

import json
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.judging.jail.plain import decode, encode

_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False) | st.fractions()
    | st.decimals(allow_nan=False)
)  # fmt: skip
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(_SCALARS)
        | st.frozensets(_SCALARS)
        | st.dictionaries(_SCALARS, inner)
    ),
    max_leaves=12,
)


def across(value: Any) -> Any:
    """As a value comes out on the other side."""
    return decode(json.loads(json.dumps(encode(value))))


def shape(value: Any) -> Any:
    """A value with the types of all that is in it: 1, 1.0 and True are not the same."""
    if isinstance(value, dict):
        return "dict", [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(each) for each in value]
    return type(value), value


@given(VALUES)
def test_plain_values_stay_what_they_are(value: Any) -> None:
    assert shape(across(value)) == shape(value)


def test_what_only_looks_like_plain_data_becomes_it() -> None:
    pair = namedtuple("pair", "a b")
    level = IntEnum("level", "low")
    assert across(pair(1, [2])) == (1, [2])
    assert across([OrderedDict(a=1), Counter("aa")]) == [{"a": 1}, {"a": 2}]
    assert shape(across(level.low)) == (int, 1)
    assert across(range(1, 9, 2)) == range(1, 9, 2)
    assert across([Fraction(1, 3), Decimal("0.10")]) == [Fraction(1, 3), Decimal("0.10")]
    assert str(across(float("nan"))) == "nan" and across(float("-inf")) == float("-inf")


def test_an_iterator_is_no_list() -> None:
    """As in one process: `list(answer) == [...]` holds, `answer == [...]` does not."""
    found = across(x * x for x in range(3))
    assert found != [0, 1, 4] and list(found) == [0, 1, 4]


def test_a_lying_value_becomes_what_it_is() -> None:
    class Equal(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert across(Equal(3)) == 3 and across(Equal(3)) != 4


@pytest.mark.parametrize("value", [object(), int, print, [object()], IntEnum("e", "a")])
def test_other_things_do_not_cross(value: Any) -> None:
    with pytest.raises(TypeError, match="is not plain data"):
        encode(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(st.sampled_from(["list", "dict", "set", "range", "bytes", "Decimal"]), inner)
        .map(list)
    ),
    max_leaves=10,
)  # fmt: skip


@given(JSON)
def test_nonsense_is_refused_and_nothing_worse(value: Any) -> None:
    try:
        decode(value)
    except ValueError:
        return
