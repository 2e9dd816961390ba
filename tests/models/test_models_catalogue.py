"""Models known by name, and what is asked of them."""

from pathlib import Path

import pytest

from server.engine.open import choose_model
from server.models.catalogue import catalogue
from server.models.families import FAMILIES
from server.models.spec import ModelSpec
from server.weights.safetensors import SafetensorsSource
from server.weights.source import CheckpointError
from tests.models.tiny import random_tensors, tiny_spec
from tokenization import default_model_path

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
# Billions of parameters as their authors publish them.
PUBLISHED = {
    "smollm2-135m": 0.135,
    "llama2-7b": 6.74,
    "llama2-13b": 13.02,
    "llama3-8b": 8.03,
    "llama3.1-8b": 8.03,
    "llama3.1-70b": 70.55,
    "qwen2.5-3b": 3.09,
    "qwen2.5-14b": 14.77,
    "qwen2.5-32b": 32.76,
    "clm-60m": 0.082,
    "clm-200m": 0.262,
    "clm-400m": 0.456,
    "clm-1.1b": 1.145,
    "llama2-70b": 68.98,
    "llama3-70b": 70.55,
    "gemma-2b": 2.51,
    "gemma-7b": 8.54,
    "opt-1.3b": 1.32,
    "opt-6.7b": 6.66,
    "bloom-1.3b": 1.312,
    "starcoder2-3b": 3.03,
    "starcoder2-7b": 7.17,
    "starcoder2-15b": 15.96,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_give_the_published_number_of_parameters(name: str) -> None:
    digits = len(str(PUBLISHED[name]).split(".")[1])
    assert round(catalogue()[name].parameters / 1e9, digits) == PUBLISHED[name]


def test_every_model_is_checked() -> None:
    assert set(catalogue()) == set(PUBLISHED)


@pytest.mark.parametrize(
    "spec",
    [
        tiny_spec(),
        tiny_spec(tied=True),
        tiny_spec(heads=6, kv_heads=3, hidden=60),
        *(
            tiny_spec(family, **({"kv_heads": 4} if family == "bloom" else {}))
            for family in FAMILIES
        ),
    ],
    ids=["untied", "tied", "uneven", *FAMILIES],
)
def test_parameters_count_every_tensor(spec: ModelSpec) -> None:
    assert spec.parameters == sum(x.size for x in random_tensors(spec).values.values())


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_parameters_count_every_tensor_of_a_checkpoint(name: str) -> None:
    source = SafetensorsSource(FIXTURES / name)
    assert source.spec.parameters == sum(source.tensor(key).size for key in source.names())


def test_the_default_model_is_what_the_catalogue_says() -> None:
    choice = choose_model("smollm2-135m", None, "auto", default_model_path)
    known = catalogue()["smollm2-135m"]
    for field in vars(known):
        if field not in ("eos_ids", "norm_eps"):
            assert getattr(choice.spec, field) == getattr(known, field), field
    assert choice.spec.norm_eps == pytest.approx(known.norm_eps)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"'llama9' is neither.*llama2-7b"):
        choose_model("llama9", None, "auto", default_model_path)


def test_a_name_without_weights_says_how_to_give_them() -> None:
    with pytest.raises(CheckpointError, match=r"llama2-7b needs its weights: pass.*--load-format"):
        choose_model("llama2-7b", None, "auto", default_model_path)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"is not llama2-7b: hidden 64 instead of 4096"):
        choose_model("llama2-7b", FIXTURES / "llama2", "auto", default_model_path)


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="checkpoint /nowhere does not exist"):
        choose_model("llama2-7b", Path("/nowhere"), "auto", default_model_path)


def test_unknown_keys_of_a_model_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown model keys \['widht'\]; known: .*'hidden'"):
        tiny_spec(widht=3)
