"""Every form of every scheme against the definition of the scheme in NumPy."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from server.engine.backend import KERNEL, PLAIN, PLAIN_CPU
from server.kernels import build
from server.quant.schemes import SCHEMES
from server.quant.weight import Form
from tests.cache import CACHE
from tests.quant import definitions

# "int8 kernel" and so on; those for accelerators that differ compute in bfloat16 there.
FORMS: dict[str, Form] = {
    **{f"{name} plain": form for name, form in PLAIN_CPU.items()},
    **{f"{name} kernel": form for name, form in KERNEL.items()},
    "none accelerator": PLAIN["none"],
    "bf16 accelerator": PLAIN["bf16"],
    "int8 accelerator": PLAIN["int8"],
}
EACH_FORM = pytest.mark.parametrize("name", FORMS)
HALF_LOW_STEP = 0.5 / (127 * 254)  # of the largest of a row or block: what two terms round away
FLOAT32 = 4e-6  # of the sum of magnitudes, for products of a few hundred terms
BFLOAT16 = 2.0**-8


@pytest.fixture(autouse=True)
def kernel(request: pytest.FixtureRequest) -> None:
    """Skips the kernel's forms where it cannot be built."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name and "kernel" in name and (reason := build.load(CACHE)):
        pytest.skip(f"no CPU kernel: {reason}")
    if name == "bf16 kernel" and (reason := build.lacks_bf16()):
        pytest.skip(f"no CPU kernel for it: {reason}")


def bound(name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[rows, outputs]: how far a form may be from the exact product of x and the stored w."""
    scheme, kind = name.split()
    rounding = FLOAT32
    if kind == "accelerator" and scheme == "none":
        rounding += BFLOAT16  # of the weights
    if kind == "accelerator" and scheme == "bf16":
        rounding += BFLOAT16  # not of x, which is bfloat16 there already
    two_terms = (scheme == "int8" and kind != "accelerator") or name in (
        "nf4 kernel",
        "nf4-dq kernel",
        "int4 kernel",
    )
    largest = np.abs(x).max(-1, keepdims=True) * HALF_LOW_STEP * two_terms
    allowed = rounding * np.abs(x) @ np.abs(w).T + largest * np.abs(w).sum(-1)
    if two_terms and scheme.startswith("nf4"):  # the table is two terms as well
        blocks = np.abs(np.pad(w, ((0, 0), (0, -w.shape[1] % 64)))).reshape(len(w), -1, 64)
        of_block = np.repeat(blocks.max(-1), 64, axis=1)[:, : w.shape[1]]
        # And the product of both low terms is left out: half a step of each at most.
        allowed += (HALF_LOW_STEP * np.abs(x) + (0.5 / 127) ** 2 * largest_of(x)) @ of_block.T
    return allowed + 1e-30


def largest_of(x: np.ndarray) -> np.ndarray:
    """Of each row, for each value."""
    return np.broadcast_to(np.abs(x).max(-1, keepdims=True), x.shape)


@EACH_FORM
@pytest.mark.parametrize("shape", [(16, 4), (3, 6, 16, 64), (131, 60), (5, 7), (48, 448)], ids=str)
@pytest.mark.parametrize("rows", [1, 33])
def test_every_form_is_the_product_of_what_it_stores(
    name: str, shape: tuple[int, ...], rows: int
) -> None:
    """Sizes that suit the kernel and sizes that do not; rows and outputs of very different size."""
    random = np.random.RandomState(rows)
    w = random.standard_normal(shape).astype(np.float32)
    w *= np.exp(random.standard_normal(shape[:-1]))[..., None].astype(np.float32)
    x = random.standard_normal((rows, shape[-1])).astype(np.float32)
    x *= (10.0 ** random.uniform(-6, 6, (rows, 1))).astype(np.float32)
    y = jax.jit(lambda weight, x: weight(x))(FORMS[name].pack(w), x)
    assert y.shape == (rows, *shape[:-1]) and y.dtype == jnp.float32
    scheme, flat = name.split()[0], w.reshape(-1, shape[-1])
    expected = definitions.product(scheme, x, flat)
    gap = np.abs(np.asarray(y, np.float64).reshape(rows, -1) - expected)
    assert (gap <= bound(name, x.astype(np.float64), definitions.stored(scheme, flat))).all()


@EACH_FORM
def test_zero_rows_and_zero_channels_are_zero(name: str) -> None:
    w = np.random.RandomState(0).standard_normal((32, 16)).astype(np.float32)
    w[3] = 0
    x = np.random.RandomState(1).standard_normal((4, 16)).astype(np.float32)
    x[2] = 0
    y = np.asarray(FORMS[name].pack(w)(jnp.asarray(x)))
    # A scale of zero is not among those that double quantization knows.
    zero = y[:, 3] if not name.startswith("nf4-dq") else y[2, 3]
    assert np.isfinite(y).all() and not y[2].any() and not zero.any() and y[1, 4] != 0


@EACH_FORM
def test_axes_before_the_inputs_are_kept(name: str) -> None:
    w = np.random.RandomState(0).standard_normal((2, 3, 16, 8)).astype(np.float32)
    x = jnp.asarray(np.random.RandomState(1).standard_normal((5, 7, 8)), jnp.float32)
    weight = FORMS[name].pack(w)
    y = weight(x)
    assert y.shape == (5, 7, 2, 3, 16)
    assert jnp.allclose(y[4, 6], weight(x[4:5, 6:7])[0, 0], atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_accelerators_compute_in_bfloat16(scheme: str) -> None:
    """The type of the activation is kept, and the result is as near as it can be."""
    random = np.random.RandomState(0)
    w = random.standard_normal((32, 256)).astype(np.float32)
    x = jnp.asarray(random.standard_normal((40, 256)) * 2, jnp.bfloat16)
    y = PLAIN[scheme].pack(w)(x)
    assert y.dtype == jnp.bfloat16
    exact = definitions.product(scheme, np.asarray(x, np.float32), w)
    gap = np.abs(np.asarray(y, np.float64) - exact)
    assert gap.max() <= BFLOAT16 * np.abs(exact).max() * 2


@pytest.mark.parametrize("name", [name for name in FORMS if "decomp" not in name])
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
    y = np.asarray(made(jnp.asarray(x)), np.float32)
    assert np.isfinite(y).all() and float(y.std()) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "none"])
def test_what_is_stored_is_what_the_scheme_says(scheme: str) -> None:
    """Bytes of the arrays, for widths that are whole blocks; 4-bit codes are packed."""
    for out, inputs in (((48,), 512), ((4, 3, 16), 4096)):
        w = np.random.RandomState(0).standard_normal((*out, inputs)).astype(np.float32)
        count = math.prod(out)
        for table in (PLAIN, KERNEL):
            held = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(table[scheme].pack(w)))
            assert held == SCHEMES[scheme].bytes(count, inputs)
    bits = 8 * held / (count * inputs)
    expected = {"bf16": 16, "nf4": 4.5, "nf4-dq": 4 + 8 / 64 + 32 / (64 * 256), "int4": 4.25}
    assert bits == pytest.approx(expected.get(scheme, 8 + 32 / 4096), abs=3e-4)


def test_large_matrices_are_packed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows give what the whole gives, the kernel's blocks of outputs included."""
    w = np.random.RandomState(0).standard_normal((100, 192)).astype(np.float32)
    whole = {name: form.pack(w) for name, form in FORMS.items()}
    monkeypatch.setattr("server.quant.parts.PART", 192 * 40)
    for name, form in FORMS.items():
        parts = zip(jax.tree.leaves(form.pack(w)), jax.tree.leaves(whole[name]), strict=True)
        for part, expected in parts:
            assert np.array_equal(np.asarray(part), np.asarray(expected)), name
