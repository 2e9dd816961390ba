"""Programs that nobody here wrote, each in an environment of its own (`make test-peers`)."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
# Nothing is fetched: models and tokenizers are folders.
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def program(environment: str, name: str) -> Path:
    """A program of an environment, or the test is skipped."""
    path = ROOT / environment / "bin" / name
    if not path.exists():
        pytest.skip(f"no {environment}/bin/{name}: `make test-peers` makes it")
    return path


def tokenizer_folder(folder: Path) -> Path:
    """A token for each byte, as Hugging Face's library wants to find it."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    file = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=[]))
    file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    file.decoder = decoders.ByteLevel()
    file.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return with_template(folder)


def with_template(folder: Path) -> Path:
    """A chat template beside a tokenizer."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def listening(command: list[str], port: int, log: Path, seconds: float) -> Iterator[None]:
    """A server process, from when it answers HTTP at all until the block ends."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=OFFLINE)
    try:
        end = time.monotonic() + seconds
        while not _answers(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
