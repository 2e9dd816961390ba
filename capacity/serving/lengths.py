"""How long prompts and answers are."""

import math
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import NormalDist

import numpy as np

from capacity.serving.rows import completed_lengths
from client.errors import UsageError
from client.workloads.sharegpt import ShareGPTRules, prompts_from, read_sharegpt
from client.workloads.trace_file import read_trace
from tokenization import default_model_path, load_tokenizer

_GIVEN = re.compile(r"(?P<inputs>\d+(\.\d+)?)[:/,](?P<outputs>\d+(\.\d+)?)(?:~(?P<sigma>.+))?$")
SAMPLE = "sample"
# Draws of a distribution that is given by its means.
_DRAWS = 1000


@dataclass(frozen=True)
class Lengths:
    """Pairs of prompt and answer, in tokens. `source` says where they come from."""

    inputs: np.ndarray
    outputs: np.ndarray
    source: str

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs) or not len(self.inputs):
            raise UsageError(f"lengths from {self.source}: no pairs of prompt and answer")
        if min(self.inputs.min(), self.outputs.min()) < 1:
            raise UsageError(f"lengths from {self.source}: a prompt or an answer is below 1 token")

    def draw(self, count: int, seed: int) -> "Lengths":
        """As many pairs, drawn with replacement."""
        rows = np.random.default_rng(seed).integers(0, len(self.inputs), count)
        return Lengths(self.inputs[rows], self.outputs[rows], self.source)

    def capped(self, outputs: int) -> "Lengths":
        """Answers of at most so many tokens."""
        return Lengths(self.inputs, np.minimum(self.outputs, outputs), self.source)

    def __str__(self) -> str:
        return (
            f"{self.source}: prompt {self.inputs.mean():.0f}, answer {self.outputs.mean():.0f} "
            "tokens on average"
        )


def parse_lengths(text: str, tokenizer: Path | None = None) -> Lengths:
    """`200:300` (always that), `200:300~0.8` (lognormal around these means, 0.8 the standard
    deviation of the logarithm), `sample` (ShareGPT-like, as client.benchmark's own data set), or a
    file: ShareGPT JSON, an Azure or Mooncake trace, or rows of client.benchmark (.jsonl).

    `tokenizer`: counts the tokens of a ShareGPT file; default: the embedded model's.
    """
    given = _GIVEN.match(text)
    if given:
        return _given(text, given)
    if text == SAMPLE:
        # The lengths only: `datasets/README.md` says how they follow ShareGPT.
        return _sample()
    path = Path(text)
    if not path.exists():
        raise UsageError(
            f"--lengths {text!r}: give PROMPT:ANSWER in tokens, PROMPT:ANSWER~SIGMA, {SAMPLE}, or "
            "a file (ShareGPT JSON, a trace as CSV or JSON lines, rows of client.benchmark)"
        )
    if path.suffix == ".json":
        return _sharegpt(path, tokenizer)
    if _is_rows(path):
        return _rows(path)
    rows = [row for row in read_trace(path) if row.inputs and row.outputs]
    return Lengths(
        np.array([row.inputs for row in rows]),
        np.array([row.outputs for row in rows]),
        path.name,
    )


def _given(text: str, given: re.Match[str]) -> Lengths:
    inputs, outputs = float(given["inputs"]), float(given["outputs"])
    if min(inputs, outputs) < 1:
        raise UsageError(f"--lengths {text!r}: 1 token or more of each")
    if given["sigma"] is None:
        return Lengths(np.array([round(inputs)]), np.array([round(outputs)]), text)
    try:
        sigma = float(given["sigma"])
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        raise UsageError(f"--lengths {text!r}: after ~ a number, 0 or more")
    # Evenly spread quantiles, so that the mean is the one that was asked for; that of a lognormal
    # is exp(mu + sigma^2 / 2).
    normal = np.array([NormalDist().inv_cdf((k + 0.5) / _DRAWS) for k in range(_DRAWS)])
    spread = np.exp(sigma * normal - sigma**2 / 2)
    shuffled = np.random.default_rng(0).permutation(spread)

    def whole(values: np.ndarray) -> np.ndarray:
        return np.maximum(np.rint(values), 1).astype(np.int64)

    return Lengths(whole(inputs * spread), whole(outputs * shuffled), text)


def _sample() -> Lengths:
    text = (resources.files("capacity.serving") / "sample_lengths.csv").read_text()
    pairs = np.array([[int(cell) for cell in line.split(",")] for line in text.splitlines()[1:]])
    return Lengths(pairs[:, 0], pairs[:, 1], "the sample data set (ShareGPT-like)")


def _sharegpt(path: Path, tokenizer: Path | None) -> Lengths:
    counter = load_tokenizer(tokenizer or default_model_path())
    prompts = list(prompts_from(read_sharegpt(path), ShareGPTRules(), counter))
    if not prompts:
        raise UsageError(f"{path}: none of its conversations fits (prompt 4 to 1,024 tokens)")
    return Lengths(
        np.array([len(prompt.token_ids) for prompt in prompts]),
        np.array([prompt.max_tokens for prompt in prompts]),
        path.name,
    )


def _is_rows(path: Path) -> bool:
    if path.suffix != ".jsonl":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"input_len"' in file.readline()


def _rows(path: Path) -> Lengths:
    pairs = completed_lengths(path)
    return Lengths(
        np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs]), path.name
    )
