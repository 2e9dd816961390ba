"""What fits: against compiled programs, and at the border."""

import pytest
from capacity_settings import setting

from capacity.hardware.chip import GIB
from capacity.memory.need import largest_batch, memory_need, require_fit
from client.errors import UsageError


@pytest.mark.parametrize(
    ("quantized", "arguments"),
    # GiB of arguments a chip that XLA states for a decode step of Llama-2-7B on v5e-8, batch 96,
    # cache 2048, compiled ahead of time with jax 0.10.2 and libtpu.
    [(False, 13.97), (True, 7.20)],
)
def test_weights_and_cache_are_those_of_the_compiled_program(
    quantized: bool, arguments: float
) -> None:
    scheme = "int8" if quantized else "none"
    need = memory_need(setting(weights=scheme, cache=scheme, slots=96, cache_length=2048))
    # The program holds layouts padded to tiles, which the count does not know.
    assert (need.weights + need.cache) / GIB == pytest.approx(arguments, rel=0.035)


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    for where, values in (
        ("v5e-8", {}),
        ("v5e-8", {"sharding": "batch", "slots": 8, "weights": "int8", "cache": "int8"}),
        ("h100", {"cache_length": 512}),
    ):
        base = setting(where=where, **values)
        most = largest_batch(base)
        assert most % base.replicas == 0
        again = {**values, "slots": most}
        assert memory_need(setting(where=where, **again)).fits
        again["slots"] = most + base.replicas
        assert not memory_need(setting(where=where, **again)).fits


def test_sharding_by_batch_keeps_all_weights_on_each_chip() -> None:
    split = memory_need(setting(slots=8))
    whole = memory_need(setting(slots=8, sharding="batch"))
    assert whole.weights > 7.9 * split.weights
    assert whole.cache == split.cache


def test_heads_that_do_not_divide_are_whole_on_each_chip() -> None:
    one, eight = (memory_need(setting("gemma-2b", where, slots=8)) for where in ("v5e-1", "v5e-8"))
    # One key/value head cannot be shared.
    assert eight.cache == one.cache


def test_what_a_model_can_reach_bounds_the_cache() -> None:
    windowed = setting("starcoder2-3b", cache_length=16384)
    assert windowed.kept_positions == 4096
    # OPT has learned 2,048 positions.
    assert setting("opt-1.3b", cache_length=4096).kept_positions == 2048
    assert setting("bloom-1.3b", cache_length=4096).kept_positions == 4096


@pytest.mark.parametrize(
    ("model", "where", "values", "says"),
    [
        ("llama2-7b", "v5e-8", {"slots": 160}, "the largest batch that fits is 103"),
        ("llama3-70b", "v5e-8", {}, "--quantize int8 fits"),
        ("llama2-13b", "v5e-8", {"sharding": "batch", "slots": 8}, "--sharding model"),
        ("llama2-13b", "v5e-1", {}, "v5e-4 would hold it"),
        ("llama3-70b", "t4", {}, "more memory, or a smaller model"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    model: str, where: str, values: dict, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        require_fit(setting(model, where, **values))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"weights": "int9"}, "int8"),
        ({"cache": "int4"}, "none, int8"),
        ({"sharding": "rows"}, "model, batch"),
        ({"slots": 0}, "at least 1"),
        ({"sharding": "batch", "slots": 12}, "a multiple of 8"),
    ],
)
def test_a_wrong_setting_names_what_is_allowed(values: dict, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        setting(**values)
    assert says in str(caught.value)


def test_what_the_planner_knows_of_the_engines_forms() -> None:
    """Copies of two constants whose owners need JAX."""
    from capacity.memory.need import _KERNEL_BLOCK, _SCRATCH
    from server.engine.backend import PLAIN
    from server.kernels.cpu import BLOCK

    assert _KERNEL_BLOCK == BLOCK
    assert {name: form.scratch for name, form in PLAIN.items() if form.scratch} == _SCRATCH
