"""On a GPU: cuDNN against the reference, and the choice that leads to it."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from server.attention.blockwise import attend_blocks
from server.attention.cudnn import attend_cudnn, trial
from server.attention.decode import attend_einsum
from server.attention.prefill import attend_chunk
from server.attention.uncached import SelfAttention, SelfChunk, UncachedAttention
from server.engine.backend import choose_uncached
from server.engine.config import EngineConfig
from server.engine.mesh import make_mesh
from tests.attention.self_attention import Problem
from tests.attention.test_attention_implementations import BOUND, PROBLEMS, ROWS, split
from tests.models.tiny import tiny_spec

pytestmark = pytest.mark.gpu
BF16 = {
    key: replace(problem, compute="bfloat16")
    for key, problem in PROBLEMS.items()
    if not problem.alibi
}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> jax.Device:
    device = jax.devices()[0]
    if device.platform != "gpu":
        pytest.skip(f"needs a GPU, this is a {device.platform}")
    return device


@pytest.mark.parametrize("key", BF16)
def test_cudnn(gpu: jax.Device, key: str) -> None:
    problem = BF16[key]
    if reason := trial(gpu, problem.head, "bfloat16"):
        pytest.fail(reason)
    out = problem.run(split(attend_cudnn))
    assert np.abs(out - problem.expected()).max() <= BOUND["bfloat16"]


@pytest.mark.parametrize("key", PROBLEMS)
@pytest.mark.parametrize("form", [attend_chunk, attend_blocks], ids=["reference", "blockwise"])
def test_plain_forms(form, key: str) -> None:
    """float32 too, in which GPUs multiply with 10 bits unless told otherwise."""
    problem = PROBLEMS[key]
    with jax.default_matmul_precision("highest"):
        out = problem.run(UncachedAttention(SelfChunk(form)))
    assert np.abs(out - problem.expected()).max() <= BOUND[problem.compute]


@pytest.mark.parametrize("form", [attend_cudnn, SelfChunk(attend_blocks)], ids=["cudnn", "blocks"])
def test_memory_grows_with_the_context_and_not_its_square(form: SelfAttention) -> None:
    def needed(tokens: int) -> int:
        problem = Problem((tokens,), tokens, 2, 2, 64, window=tokens, compute="bfloat16")
        return problem.temporaries(split(form))

    assert needed(8192) < 4.5 * needed(2048)


@pytest.mark.parametrize(
    ("changes", "name"), [({}, "cudnn"), ({"positions": "alibi"}, "blockwise")]
)
def test_choice(gpu: jax.Device, changes: dict, name: str) -> None:
    said: list[str] = []
    spec, mesh = tiny_spec(**changes), make_mesh([gpu], "model")
    config = EngineConfig(slots=1)
    assert choose_uncached(spec, mesh, config, None, said.append)[1] == name
    assert said[-1].startswith(f"attention: {name}")


def test_a_first_chunk_by_cudnn_is_what_later_chunks_make() -> None:
    """The same rows through the cache of an engine: cuDNN alone against the plain form."""
    from server.attention.plain import PlainAttention
    from server.attention.rows import Rows
    from server.quant import kv

    problem = Problem(ROWS, 130, 2, 2, 64, window=200, compute="bfloat16")
    angles, lengths = problem.angles(), np.asarray(ROWS, np.int32)
    slots = np.arange(len(ROWS), dtype=np.int32)

    def run(form: PlainAttention, span: int):
        def attend(qkv, cos, sin):
            rows = Rows(np.zeros_like(lengths), lengths, slots, cos, sin)
            cache = kv.empty(len(ROWS), 2, 200, 64, qkv.dtype)
            return form(rows, 200, span, problem.scores)(qkv, cache)

        return jax.jit(attend)(problem.qkv(), np.cos(angles), np.sin(angles))

    plain = PlainAttention(attend_einsum)
    out, cache = run(replace(plain, alone=split(attend_cudnn)), 0)
    like, same = run(plain, 200)
    assert np.abs(np.asarray(out - like, np.float32)).max() <= BOUND["bfloat16"]
    assert all(map(np.array_equal, jax.tree.leaves(cache), jax.tree.leaves(same)))
