"""Tokenizers that most tests here need."""

import pytest
from tiny_tokenizers import train_sentencepiece

from tokenization import Tokenizer, default_model_path, load_tokenizer


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    return load_tokenizer(default_model_path())


@pytest.fixture(scope="session")
def llama_spm() -> bytes:
    return train_sentencepiece("bpe", keeps_spaces=True)
