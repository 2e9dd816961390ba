"""Servers, data and a tokenizer for the client's tests; all real, all small."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from client_rig import (
    ENVIRONMENT,
    HTTP_SERVER,
    Outcome,
    Server,
    benchmark_command,
    outcome,
    serving,
)
from hypothesis import settings

from tokenization import Tokenizer, load_tokenizer

# How long an example takes says how busy the machine is.
settings.register_profile("client", deadline=None)
settings.load_profile("client")

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with our own fields; 50 ms to the first token, 5 ms a token after it."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    """A server of scripts over HTTP; a test module may put another here."""
    with serving(script=HTTP_SERVER) as running:
        yield running


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a token for each byte, a BOS token and a chat template."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>"])
    folder = tmp_path_factory.mktemp("tokenizer")
    library.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": True,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    """The tokenizer itself."""
    return load_tokenizer(tokenizer_path)


@pytest.fixture
def benchmark(tmp_path: Path, tokenizer_path: Path) -> Callable[..., Outcome]:
    """Runs the command on conversations: `benchmark(port, [conversation], "--flag", ...)`."""

    def run(port: int, conversations: Any, *arguments: str) -> Outcome:
        command = benchmark_command(tmp_path, tokenizer_path, port, conversations, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False
        )
        return outcome(tmp_path, done.returncode, done.stdout, done.stderr)

    return run
