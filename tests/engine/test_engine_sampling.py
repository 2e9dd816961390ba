"""Choosing tokens: exact limits, right frequencies, seeds that belong to the request."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.engine.protocol import PrefillChunk, Sampling
from server.engine.sampling import Settings, sample
from server.engine.state import pack, unpack
from tests.engine.driving import Ask, generate, ids, prompt_of

VOCAB, DRAWS = 24, 4096
WARM = Sampling(temperature=1.3, seed=5)


@jax.jit
def run(logits: jax.Array, limits: Settings, at: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every row live."""
    return sample(logits, limits, at, jnp.ones(logits.shape[0], bool))


def draw(logits: np.ndarray, sampling: Sampling, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """`draws` tokens for one row of logits, each with a seed of its own."""
    rows = np.broadcast_to(logits.astype(np.float32), (draws, len(logits)))
    seeds = np.arange(draws, dtype=np.uint32) + np.uint32(seed * draws)
    tokens, _ = run(rows, settings_of([sampling] * draws, seeds), np.full(draws, 3, np.int32))
    return np.asarray(tokens)


def settings_of(samplings: list[Sampling], seeds: np.ndarray) -> Settings:
    count = len(samplings)
    return Settings(
        temperature=np.asarray([s.temperature for s in samplings], np.float32),
        top_k=np.asarray([s.top_k for s in samplings], np.int32),
        top_p=np.asarray([s.top_p for s in samplings], np.float32),
        seed=np.stack([seeds, np.zeros(count, np.uint32)], axis=1),
        logprobs=np.ones(count, bool),
    )


def allowed(logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, float]:
    """Probabilities after all limits, by sorting, and how near top_p comes to a boundary."""
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled)
    if sampling.top_k:
        order = order[: sampling.top_k]
    weights = np.exp(scaled[order] - scaled[order].max())
    mass = np.cumsum(weights / weights.sum())
    kept = len(order)
    if sampling.top_p < 1:
        kept = int(np.searchsorted(mass, sampling.top_p)) + 1
    out = np.zeros(len(logits))
    out[order[:kept]] = weights[:kept] / weights[:kept].sum()
    return out, float(np.abs(mass - sampling.top_p).min()) if sampling.top_p < 1 else 1.0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.8, 3.0),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.99)),
)
def test_limits_allow_exactly_the_right_tokens(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.RandomState(seed).uniform(-1.0, 1.0, VOCAB).astype(np.float32)
    sampling = Sampling(temperature, top_k, top_p)
    probabilities, distance = allowed(logits, sampling)
    assume(distance > 1e-5)  # nearer than that float32 may fall on the other side
    assert set(draw(logits, sampling, seed=seed)) == set(np.flatnonzero(probabilities))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.6),
        Sampling(2.5, top_k=6),
        Sampling(1.0, top_p=0.8),
        Sampling(1.7, top_k=10, top_p=0.7),
    ],
    ids=str,
)
def test_frequencies_are_the_models(sampling: Sampling) -> None:
    """Chi-square of 20,480 draws: five deviations above what chance gives would be 1 in 10^6."""
    logits = np.random.RandomState(3).standard_normal(VOCAB)
    drawn = np.concatenate([draw(logits, sampling, seed=turn) for turn in range(5)])
    probabilities, _ = allowed(logits, sampling)
    expected = probabilities * len(drawn)
    counts = np.bincount(drawn, minlength=VOCAB)
    live = expected > 0
    assert counts[~live].sum() == 0
    chi = ((counts[live] - expected[live]) ** 2 / expected[live]).sum()
    degrees = live.sum() - 1
    assert chi < degrees + 5 * np.sqrt(2 * degrees)


def test_greedy_rows_are_exact_beside_random_ones() -> None:
    logits = np.random.RandomState(0).standard_normal((64, VOCAB)).astype(np.float32)
    mixed = [Sampling() if row % 2 else WARM for row in range(64)]
    seeds, at = np.arange(64, dtype=np.uint32), np.zeros(64, np.int32)
    tokens, _ = run(logits, settings_of(mixed, seeds), at)
    greedy = logits.argmax(-1)
    assert np.array_equal(np.asarray(tokens)[1::2], greedy[1::2])
    assert not np.array_equal(np.asarray(tokens)[::2], greedy[::2])


def test_one_candidate_is_greedy() -> None:
    logits = np.random.RandomState(0).standard_normal(VOCAB)
    for sampling in (Sampling(5.0, top_k=1), Sampling(5.0, top_p=1e-6)):
        assert set(draw(logits, sampling)) == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [1e-4, 1.0, 1e4])
def test_extreme_logits_and_temperatures_stay_finite(temperature: float) -> None:
    logits = np.asarray([300.0, 299.0, -300.0, 0.0] * 6)
    tokens = draw(logits, Sampling(temperature, top_k=8, top_p=0.999))
    assert set(tokens % 4) <= {0, 1}


def test_a_row_depends_on_its_seed_and_position_alone() -> None:
    logits = np.tile(np.random.RandomState(1).standard_normal(VOCAB), (16, 1)).astype(np.float32)
    seeds, at = np.arange(16, dtype=np.uint32), np.arange(16, dtype=np.int32)
    forward, _ = run(logits, settings_of([WARM] * 16, seeds), at)
    limits = [replace(WARM, temperature=0.0 if row % 3 else 1.3, top_p=1.0) for row in range(16)]
    backward, _ = run(logits, settings_of(limits, seeds[::-1]), at[::-1])
    same = np.asarray(backward)[::-1] == np.asarray(forward)
    assert same[[row for row in range(16) if not (15 - row) % 3]].all()
    moved, _ = run(logits, settings_of([WARM] * 16, seeds), at + 1)
    reseeded, _ = run(logits, settings_of([WARM] * 16, seeds + 1), at)
    assert (np.asarray(moved) != np.asarray(forward)).sum() > 5
    assert (np.asarray(reseeded) != np.asarray(forward)).sum() > 5


def test_logprobs_are_the_models_whatever_the_limits() -> None:
    logits = np.random.RandomState(2).standard_normal((8, VOCAB)).astype(np.float32)
    tight = [Sampling(0.3, top_k=3, top_p=0.5)] * 8
    tokens, logprobs = run(
        logits,
        settings_of(tight, np.arange(8, dtype=np.uint32)),
        np.zeros(8, np.int32),
    )
    expected = logits - np.logaddexp.reduce(logits, -1)[:, None]
    assert np.allclose(logprobs, expected[np.arange(8), np.asarray(tokens)], atol=1e-5)


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    temperature=st.floats(0, 100, width=32),
    top_p=st.floats(0, 1, width=32),
    top_k=st.integers(0, 2**40),
    start=st.integers(0, 2**30),
)
@settings(max_examples=30, deadline=None)
def test_a_prefill_arrives_as_it_was_sent(
    seed: int, temperature: float, top_p: float, top_k: int, start: int
) -> None:
    """Through the one packed array: seeds of 64 bits, floats to the bit."""
    sampling = Sampling(temperature, top_k, top_p, seed)
    chunk = PrefillChunk(3, [5, 6], start, True, sampling, 9, True, True)
    rows = jax.device_get(unpack(jnp.asarray(pack([chunk], 2, 4, 8))))
    low, high = (int(part) for part in rows.settings.seed[0])
    assert low + (high << 32) == seed % 2**64
    assert rows.settings.temperature[0] == np.float32(temperature)
    assert rows.settings.top_p[0] == np.float32(top_p)
    assert rows.settings.top_k[0] == min(top_k, 2**31 - 1)
    assert (rows.starts[0], rows.lengths[0], rows.remaining[0]) == (start, 2, 9)
    assert rows.slots.tolist() == [3, 8] and rows.last.tolist() == [True, False]
    assert rows.tokens.tolist() == [[5, 6, 0, 0], [0, 0, 0, 0]]


def test_the_same_seed_gives_the_same_text_in_any_company(engines: Callable) -> None:
    engine = engines()
    mine = Ask(0, prompt_of(12, 1), 20, replace(WARM, top_k=40))
    alone = ids(generate(engine, [mine])[0])
    company = [
        Ask(1, prompt_of(30, 2), 25, Sampling(0.9, seed=5)),
        Ask(2, prompt_of(5, 3), 9),
        replace(mine, slot=3),
    ]
    said = generate(engine, company, ahead=1)
    assert ids(said[3]) == alone
    assert ids(said[2]) == ids(generate(engine, [replace(company[1], slot=0)])[0])
    assert ids(generate(engines(steps=3), [replace(mine, slot=2)])[2]) == alone
    other = replace(mine, sampling=replace(mine.sampling, seed=6))
    assert ids(generate(engine, [other])[0]) != alone


def test_seeds_of_more_than_32_bits_differ(engines: Callable) -> None:
    texts = {
        tuple(ids(generate(engines(), [Ask(0, [1, 2], 12, replace(WARM, seed=seed))])[0]))
        for seed in (1, 1 + 2**32, 1 + 2**63, 2**32)
    }
    assert len(texts) == 4
