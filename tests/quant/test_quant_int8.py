"""int8 weights: the definition, and every form against the float product of what it stores."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.sharding import PartitionSpec

from server.kernels import build
from server.quant.dense import DenseForm, PackedDenseForm
from server.quant.int8 import Int8, Int8Form, PackedInt8Form, TwoTermInt8, quantize
from server.quant.two_term import SMALLEST, split
from server.quant.weight import Form

FORMS: dict[str, Form] = {
    "plain": DenseForm(jnp.float32),
    "kernel": PackedDenseForm(),
    "int8": Int8Form(Int8),
    "two terms": Int8Form(TwoTermInt8),
    "kernel int8": PackedInt8Form(),
}
EACH_FORM = pytest.mark.parametrize("name", FORMS)
EACH_INT8 = pytest.mark.parametrize("name", ["int8", "two terms", "kernel int8"])
HALF_LOW_STEP = 0.5 / (127 * 254)  # of the largest activation of a row: what two terms round away
FLOAT32 = 4e-6  # of the sum of magnitudes, for products of a few hundred terms

# XLA takes numbers below 1e-38 for zero, and with them the scale of a vector below 127 of these.
FINITE = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)


@pytest.fixture(autouse=True)
def kernel(request: pytest.FixtureRequest) -> None:
    """Skips the kernel's forms where it cannot be built."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name and "kernel" in name and (reason := build.load(None)):
        pytest.skip(f"no CPU kernel: {reason}")


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=FINITE))
def test_quantize_is_its_definition(w: np.ndarray) -> None:
    codes, scale = quantize(w)
    for row, code, step in zip(w.astype(np.float64), codes, scale, strict=True):
        assert code.dtype == np.int8 and np.abs(code.astype(int)).max(initial=0) <= 127
        assert step == pytest.approx(np.abs(row).max() / 127, rel=1e-6)
        if step == 0:
            assert not code.any()
        else:
            assert np.abs(code * float(step) - row).max() <= float(step) * 0.50001


def test_a_zero_channel_stays_zero() -> None:
    codes, scale = quantize(np.zeros((3, 8), np.float32))
    assert not codes.any() and not scale.any()


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, (3, 8), elements=FINITE))
def test_two_terms_are_right_to_half_a_low_step(x: np.ndarray) -> None:
    high, low, step = (np.asarray(part, np.float64) for part in split(jnp.asarray(x)))
    back = step * (high + low / 254)
    # Rows below SMALLEST share one step, by definition.
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), SMALLEST)
    # Beyond the half step float32 itself rounds x / step, up to 127, at 2^-24.
    assert (np.abs(back - x) <= largest * (HALF_LOW_STEP + 4e-7)).all()
    assert np.abs(high).max() <= 127 and np.abs(low).max() <= 127


def stored(name: str, w: np.ndarray) -> np.ndarray:
    """The matrix [outputs, in] that a form keeps, float64."""
    flat = w.reshape(-1, w.shape[-1])
    if "int8" not in name and name != "two terms":
        return flat.astype(np.float64)
    codes, scale = quantize(flat)
    return codes.astype(np.float64) * scale[:, None]


def bound(name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[rows, outputs]: how far a form may be from the exact product of `stored`."""
    magnitude = np.abs(x) @ np.abs(w).T
    rounding = 0.0
    if name in ("two terms", "kernel int8"):
        largest = np.abs(x).max(-1, keepdims=True)
        rounding = largest * HALF_LOW_STEP * np.abs(w).sum(-1)
    return FLOAT32 * magnitude + rounding + 1e-30


@EACH_FORM
@pytest.mark.parametrize("shape", [(16, 4), (3, 6, 16, 64), (131, 60), (5, 7), (48, 1536)], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 8, 33])
def test_every_form_is_the_product_of_what_it_stores(
    name: str, shape: tuple[int, ...], rows: int
) -> None:
    """Sizes that suit the kernel and sizes that do not; rows of very different size."""
    random = np.random.RandomState(rows)
    w = random.standard_normal(shape).astype(np.float32)
    w *= np.exp(random.standard_normal(shape[:-1]))[..., None].astype(np.float32)
    x = random.standard_normal((rows, shape[-1])).astype(np.float32)
    x *= (10.0 ** random.uniform(-6, 6, (rows, 1))).astype(np.float32)
    weight = FORMS[name].pack(w)
    y = jax.jit(lambda weight, x: weight(x))(weight, x)
    assert y.shape == (rows, *shape[:-1]) and y.dtype == jnp.float32
    flat = stored(name, w)
    gap = np.abs(np.asarray(y, np.float64).reshape(rows, -1) - x.astype(np.float64) @ flat.T)
    assert (gap <= bound(name, x.astype(np.float64), flat)).all()


@EACH_FORM
def test_zero_rows_and_zero_channels_are_zero(name: str) -> None:
    w = np.random.RandomState(0).standard_normal((32, 16)).astype(np.float32)
    w[3] = 0
    x = np.random.RandomState(1).standard_normal((4, 16)).astype(np.float32)
    x[2] = 0
    y = np.asarray(FORMS[name].pack(w)(jnp.asarray(x)))
    assert np.isfinite(y).all() and not y[2].any() and not y[:, 3].any() and y[1, 4] != 0


@EACH_FORM
def test_axes_before_the_inputs_are_kept(name: str) -> None:
    w = np.random.RandomState(0).standard_normal((2, 3, 16, 8)).astype(np.float32)
    x = jnp.asarray(np.random.RandomState(1).standard_normal((5, 7, 8)), jnp.float32)
    weight = FORMS[name].pack(w)
    y = weight(x)
    assert y.shape == (5, 7, 2, 3, 16)
    assert jnp.allclose(y[4, 6], weight(x[4:5, 6:7])[0, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "int8", "two terms"])
def test_the_type_of_the_activation_is_kept(name: str) -> None:
    w = np.random.RandomState(0).standard_normal((32, 16)).astype(np.float32)
    y = FORMS[name].pack(w)(jnp.ones((4, 16), jnp.bfloat16 if name != "plain" else jnp.float32))
    assert y.dtype == (jnp.bfloat16 if name != "plain" else jnp.float32)


@EACH_INT8
def test_a_row_does_not_feel_its_neighbours(name: str) -> None:
    """Scales belong to rows: a huge neighbour must not coarsen a small row."""
    w = np.random.RandomState(0).standard_normal((32, 64)).astype(np.float32)
    x = np.random.RandomState(1).standard_normal((8, 64)).astype(np.float32)
    loud = x.copy()
    loud[1:] *= 1e6
    weight = FORMS[name].pack(w)
    call: Callable = jax.jit(lambda x: weight(x))
    assert np.array_equal(np.asarray(call(x))[0], np.asarray(call(loud))[0])


@EACH_FORM
@pytest.mark.parametrize(("out", "inputs"), [((3, 6, 16), 64), ((131,), 60)], ids=str)
def test_random_weights_are_of_the_same_make(name: str, out: tuple[int, ...], inputs: int) -> None:
    """Shapes, types and spread as packed ones, so that a plan made from them is right."""
    form = FORMS[name]
    made = form.random(jax.random.key(0), out, inputs)
    packed = form.pack(np.ones((*out, inputs), np.float32))
    kinds = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(made)]
    assert kinds == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(packed)]
    assert jax.tree.structure(made) == jax.tree.structure(packed)
    places = form.partition(out, None, None)
    is_place = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    assert jax.tree.structure(places, is_leaf=is_place) == jax.tree.structure(made)
    x = np.random.RandomState(0).standard_normal((64, inputs)).astype(np.float32)
    assert float(jnp.std(made(jnp.asarray(x)))) == pytest.approx(1.0, abs=0.25)
