"""Forwards without a cache: logits and losses against a model in NumPy, memory, bad input."""

import re
from collections.abc import Callable

import jax
import numpy as np
import pytest

from server.engine import losses, memory
from server.engine.memory import DoesNotFitError
from server.engine.open import ModelChoice
from server.engine.uncached import Uncached, open_uncached
from server.quant.schemes import SCHEMES
from tests.engine.conftest import CACHE
from tests.models.plain import plain_logits
from tests.models.tiny import Tensors, random_tensors, tiny_spec

SPECS = {
    "llama": tiny_spec(),
    "qwen": tiny_spec("qwen2", tied=True, kv_heads=1),
    "window": tiny_spec("starcoder2", sliding_window=9),
    "gemma": tiny_spec("gemma", tied=True, kv_heads=1, head_dim=32),
    "opt": tiny_spec("opt", kv_heads=4, max_positions=40, tied=True),
    "bloom": tiny_spec("bloom", heads=6, kv_heads=6, ffn=256),
    "many": tiny_spec(heads=8, kv_heads=8, ffn=128),
    "many bloom": tiny_spec("bloom", heads=8, kv_heads=8, ffn=256),
    "uneven": tiny_spec(heads=6, kv_heads=3, ffn=100, vocab=131, hidden=60),
}
TENSORS = {name: random_tensors(spec) for name, spec in SPECS.items()}
BOUND = 2e-4


def opened(name: str, devices: int = 1, **settings: object) -> Uncached:
    source = TENSORS[name]
    choice = ModelChoice(source.spec, None, source)
    given = jax.devices()[:devices]
    return open_uncached(choice, devices=given, cache_dir=CACHE, **settings)  # type: ignore[arg-type]


def tokens_of(rows: int, count: int) -> np.ndarray:
    return np.random.RandomState(count).randint(0, 128, (rows, count)).astype(np.int32)


def expected_logits(source: Tensors, tokens: np.ndarray) -> np.ndarray:
    """[B,T,V]."""
    window = source.spec.sliding_window
    return np.stack([plain_logits(source, row.tolist(), window) for row in tokens])


def expected_losses(scores: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    scores, targets = scores[:, :-1], tokens[:, 1:]
    total = np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)) + scores.max(-1)
    return total - np.take_along_axis(scores, targets[..., None], -1)[..., 0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        pytest.param("qwen", {}, marks=pytest.mark.slow),
        ("window", {}),
        pytest.param("window", {"attention": "reference"}, marks=pytest.mark.slow),
        ("gemma", {}),
        ("opt", {}),
        ("bloom", {}),
        pytest.param("bloom", {"attention": "reference"}, marks=pytest.mark.slow),
        pytest.param("uneven", {}, marks=pytest.mark.slow),
        ("many", {"devices": 8}),
        ("many", {"devices": 8, "sharding": "batch"}),
        ("many bloom", {"devices": 8}),
        pytest.param("window", {"devices": 2}, marks=pytest.mark.slow),
        ("uneven", {"devices": 2, "sharding": "batch", "attention": "reference"}),
    ],
    ids=str,
)
def test_logits_and_losses(monkeypatch: pytest.MonkeyPatch, name: str, settings: dict) -> None:
    """Three rows, which divide over no mesh, and eight; losses in blocks that do not divide."""
    monkeypatch.setattr(losses, "LOGIT_BYTES", 4 * 128 * 8 * 5)  # 5 positions of 8 rows
    model = opened(name, **settings)
    tokens = tokens_of(3, 17)
    scores = expected_logits(TENSORS[name], tokens)
    assert np.abs(model.next_logits(tokens) - scores[:, -1]).max() <= BOUND
    tokens = tokens_of(8, 24)
    expected = expected_losses(expected_logits(TENSORS[name], tokens), tokens)
    found = model.losses(tokens)
    assert found.shape == (8, 23)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= BOUND
    assert model.loss(tokens) == pytest.approx(found.mean(), abs=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_scheme(scheme: str, devices: int) -> None:
    """Random weights are the hard case: every value counts. Correlation, not equality."""
    tokens = tokens_of(2, 24)
    exact = expected_logits(TENSORS["many"], tokens)[:, -1]
    rough = opened("many", devices, weights=scheme).next_logits(tokens)
    # Steps of int4 are a seventh of a block's largest value, twice those of NF4 in the middle.
    bound = 0.8 if scheme == "int4" else 0.9
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > bound


def test_one_token_and_longer_than_the_window() -> None:
    model = opened("window")
    for count in (1, 70):
        tokens = tokens_of(1, count)
        scores = expected_logits(TENSORS["window"], tokens)
        assert np.abs(model.next_logits(tokens) - scores[:, -1]).max() <= BOUND


def test_a_program_is_compiled_once_for_a_size() -> None:
    said: list[str] = []
    source = TENSORS["llama"]
    model = open_uncached(
        ModelChoice(source.spec, None, source),
        devices=jax.devices()[:1],
        cache_dir=CACHE,
        report=said.append,
    )
    said.clear()
    for _ in range(2):
        model.next_logits(tokens_of(1, 8))
        model.loss(tokens_of(1, 8))
    model.memory(1, 8)
    assert [line.split(",")[0] for line in said] == [
        "compiled next_logits for 1 x 8 tokens",
        "compiled losses for 1 x 8 tokens",
    ]


@pytest.mark.parametrize(("program", "devices"), [("next_logits", 1), ("losses", 2)])
def test_flash_needs_no_memory_for_the_square_of_the_context(program: str, devices: int) -> None:
    """Four times the tokens: four times the memory, and sixteen times with all scores."""
    flash, plain = (opened("many", devices, attention=name) for name in ("flash", "reference"))
    assert flash.memory(1, 2048, program) < 4.5 * flash.memory(1, 512, program)
    assert plain.memory(1, 2048, program) > 10 * plain.memory(1, 512, program)
    assert flash.memory(1, 2048, program) < plain.memory(1, 2048, program) / 10


def test_losses_hold_few_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 256 positions of 4,096 logits would take 8 MiB; here they come 8 at a time."""
    choice = ModelChoice(tiny_spec(vocab=4096), None, None)
    model = open_uncached(choice, devices=jax.devices()[:1], cache_dir=CACHE)
    monkeypatch.setattr(losses, "LOGIT_BYTES", 4 * 4096 * 2 * 8)
    assert model.memory(2, 256, "losses") < 2**22


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.next_logits(np.zeros(4, np.int32)), "int32 of shape (4,); integers [batch"),
        (lambda m: m.next_logits(np.zeros((1, 4))), "float64 of shape (1, 4)"),
        (lambda m: m.next_logits(np.full((1, 4), 128)), "ids from 128 to 128; tiny has 0 to 127"),
        (lambda m: m.next_logits(np.full((1, 4), -1)), "ids from -1 to -1"),
        (lambda m: m.next_logits(np.zeros((1, 0), np.int32)), "1 rows of 0 tokens"),
        (lambda m: m.losses(np.zeros((2, 1), np.int32)), "at least 2 tokens"),
        (lambda m: m.compile("logits", 1, 1), "'logits'; allowed: next_logits, losses"),
    ],
)
def test_bad_input(call: Callable[[Uncached], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(opened("llama"))


def test_more_tokens_than_positions_are_refused() -> None:
    model = opened("opt")
    model.next_logits(tokens_of(1, 40))
    with pytest.raises(ValueError, match="41 tokens; tiny has 40 positions"):
        model.next_logits(tokens_of(1, 41))


def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("llama", attention="reference")
    monkeypatch.setattr(memory, "free_bytes", lambda devices: 2**20)
    model.next_logits(tokens_of(1, 8))
    with pytest.raises(DoesNotFitError, match=r"1 x 900 tokens needs 0\.\d+ GiB .* flash"):
        model.next_logits(tokens_of(1, 900))
    monkeypatch.setattr(memory, "free_bytes", lambda devices: 100)
    with pytest.raises(DoesNotFitError, match="tiny: the weights needs"):
        opened("llama")


@pytest.mark.parametrize("setting", ["attention", "weights", "sharding"])
def test_settings_that_are_not_known(setting: str) -> None:
    with pytest.raises(ValueError, match=r"'best'.*; allowed: "):
        opened("llama", **{setting: "best"})
