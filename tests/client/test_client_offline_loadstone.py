"""Our engine as the in-process benchmark drives it: the tokens are the model's own."""

from pathlib import Path

import numpy as np
import pytest

from client.engines.ask import FORWARD, GENERATE, LOSS, Ask, Model
from client.engines.engine import DoesNotFit, Engine
from client.engines.loadstone import open_engine, server_options
from server.weights.safetensors import SafetensorsSource
from tests.models.plain import plain_logits
from tests.models.tiny import Tensors

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "models" / "llama31"
# One device: the test process has eight.
ONE_DEVICE = ("--devices", "1", "--platform", "cpu")


def ask(task: str, **more) -> Ask:
    """A point on a tiny checkpoint."""
    values = {
        "engine": "loadstone",
        "kind": "none",
        "attention": "flash",
        "task": task,
        "model": Model("tiny", checkpoint=str(FIXTURE)),
        "batch": 3,
        "cache_dir": str(ROOT / ".cache"),
        "options": ONE_DEVICE,
        **more,
    }
    return Ask(**values)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """The same weights, for the plain model."""
    source = SafetensorsSource(FIXTURE)
    return Tensors(source.spec, {name: source.tensor(name) for name in source.names()})


def opened(wanted: Ask) -> Engine:
    """The engine, without a change to this process's environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
        return open_engine(wanted)


@pytest.mark.parametrize("steps", [1, 3])
def test_generation_makes_greedy_tokens_for_prompts_of_any_length(tensors, steps):
    wanted = ask(
        GENERATE, prompts=(7, 40), new_tokens=9, options=(*ONE_DEVICE, "--decode-steps", str(steps))
    )
    engine = opened(wanted)
    draw = np.random.default_rng(0)
    prompts = [draw.integers(3, tensors.spec.vocab, n).tolist() for n in (40, 7, 11)]
    for _ in range(2):  # slots are free again after a run
        made = engine.generate(prompts, 9)
        text = list(prompts[0])
        for token in made.first_row:
            scores = plain_logits(tensors, text)[-1]
            assert scores[token] >= scores.max() - 1e-3
            text.append(token)
        assert len(made.stamps) == len(made.first_row) == 9
        assert made.stamps == sorted(made.stamps)
    facts = engine.facts()
    assert facts.sizes["layers"] == tensors.spec.layers and facts.devices == 1
    assert facts.step_weight_bytes < facts.weight_bytes
    assert engine.cold.compile > 0 and engine.cold.load > 0


def test_passes_go_on_with_the_next_token_and_their_loss_is_the_models(tensors):
    engine = opened(ask(FORWARD, context=12, new_tokens=2))
    rows = np.random.default_rng(1).integers(3, tensors.spec.vocab, (3, 12)).tolist()
    window = engine.advance(engine.window(rows))
    for row, shifted in zip(rows, window.tolist(), strict=True):
        assert shifted[:-1] == row[1:]
        scores = plain_logits(tensors, row)[-1]
        assert scores[shifted[-1]] >= scores.max() - 1e-3
    expected = []
    for row in rows:
        scores = plain_logits(tensors, row)[:-1]
        chosen = scores[np.arange(11), row[1:]]
        expected += (np.logaddexp.reduce(scores, -1) - chosen).tolist()
    found = opened(ask(LOSS, context=12)).loss(np.asarray(rows, np.int32))
    assert found == pytest.approx(np.mean(expected), abs=1e-4)


def test_what_does_not_fit_is_refused_with_the_numbers():
    with pytest.raises(DoesNotFit, match="the largest batch that fits is"):
        opened(ask(GENERATE, prompts=(64,), new_tokens=100, batch=10**8))


def test_a_batch_is_read_in_one_dispatch_with_nothing_to_spare():
    words = server_options(ask(GENERATE, prompts=(7, 9, 5), new_tokens=100, batch=64))
    given = dict(zip(words[::2], words[1::2], strict=False))
    sizes = ("--batch-size", "--cache-length", "--prefill-chunk", "--prefill-rows")
    assert [given[name] for name in sizes] == ["64", "112", str(64 * 9), "64"]
    assert given["--prefill-row-tokens"] == "9"
    long = server_options(ask(GENERATE, prompts=(3000,), new_tokens=2, batch=4))
    assert dict(zip(long[::2], long[1::2], strict=False))["--prefill-rows"] == "1"
    trained = server_options(ask(LOSS, context=8, kind="int8", attention="reference"))
    assert trained[:4] == ["--model", str(FIXTURE), "--load-format", "auto"]
    assert trained[4:8] == ["--quantize", "int8", "--attention", "reference"]
