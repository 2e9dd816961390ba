"""Which implementation serves what, and what is said of those passed over."""

from dataclasses import replace

import jax
import pytest

from server.attention import choice, kernel, uncached
from server.attention.choice import MOST_SCORES, ORDER, Case, Choice
from server.attention.decode import attend_einsum
from server.attention.names import IMPLEMENTATIONS
from server.attention.plain import PlainAttention
from server.attention.prefill import attend_chunk
from server.engine.mesh import make_mesh

CPU = Case("cpu", 64, "float32", alibi=False)
GPU = Case("gpu", 128, "bfloat16", alibi=False, capability=(9, 0), no_kernel="not a CPU")
TPU = Case("tpu", 128, "bfloat16", alibi=False, no_kernel="not a CPU")
PLAIN = PlainAttention(attend_einsum)
FEW, MANY = MOST_SCORES // 4, MOST_SCORES * 4


def choose(case: Case, implementation: str = "flash") -> Choice:
    mesh = make_mesh(jax.devices()[:1], "model")
    return choice.attention(implementation, case, mesh, PLAIN)


@pytest.mark.parametrize(
    ("case", "name", "reason"),
    [
        (CPU, "cpu-kernel", ""),
        (replace(CPU, alibi=True), "cpu-kernel", ""),
        (replace(CPU, no_kernel="no C compiler"), "blockwise", "no C compiler"),
        (GPU, "cudnn", ""),
        (replace(GPU, alibi=True), "blockwise", "ALiBi"),
        (replace(GPU, compute="float32"), "blockwise", "float32"),
        (replace(GPU, head_dim=256), "cudnn", ""),
        (replace(GPU, head_dim=256, capability=(8, 9)), "blockwise", "head size 256"),
        (replace(GPU, head_dim=20), "blockwise", "head size 20"),
        (replace(GPU, capability=(7, 5)), "blockwise", "7.5 is older than 8.0"),
        (replace(GPU, capability=None), "blockwise", "not NVIDIA's"),
        (replace(GPU, no_cudnn="it does not compile"), "blockwise", "does not compile"),
        (TPU, "splash", ""),
        (replace(TPU, alibi=True), "blockwise", "ALiBi"),
    ],
    ids=str,
)
def test_without_a_cache(case: Case, name: str, reason: str) -> None:
    chosen = choose(case)
    assert chosen.name == name
    assert chosen.name == str(chosen) if not reason else reason in str(chosen)
    assert not chosen.blockwise


@pytest.mark.parametrize(
    ("case", "name", "reason"),
    [
        (CPU, "cpu-kernel", ""),
        (replace(CPU, int8_cache=True), "cpu-kernel", ""),
        (replace(CPU, no_kernel="no C compiler"), "reference", "0.1 s"),
        (GPU, "cudnn", ""),
        (replace(GPU, int8_cache=True), "reference", "int8"),
        (replace(TPU, int8_cache=True), "reference", "int8"),
        (replace(GPU, alibi=True), "reference", "64 MiB"),
    ],
    ids=str,
)
def test_with_a_cache(case: Case, name: str, reason: str) -> None:
    chosen = choose(replace(case, scores=FEW))
    assert (chosen.name, chosen.blockwise) == (name, False)
    assert reason in str(chosen)
    assert chosen.reads_live == (name == "cpu-kernel")


@pytest.mark.parametrize("case", [GPU, TPU, replace(GPU, int8_cache=True)], ids=str)
def test_chunks_with_many_scores_are_read_in_blocks(case: Case) -> None:
    chosen = choose(replace(case, scores=MANY))
    assert chosen.blockwise
    assert isinstance(chosen.form, PlainAttention)
    assert chosen.form.chunk is not attend_chunk
    assert (chosen.form.alone is None) == case.int8_cache


@pytest.mark.parametrize("case", [CPU, GPU, TPU], ids=str)
def test_the_reference_is_the_reference(case: Case) -> None:
    assert choose(case, "reference").form is uncached.reference
    cached = choose(replace(case, scores=MANY), "reference")
    assert cached.form == PLAIN
    assert str(cached) == "reference"


def test_the_kernel_serves_both() -> None:
    assert choose(CPU).form is uncached.attend_in_kernel
    assert choose(replace(CPU, scores=FEW)).form is kernel.attend_in_kernel


def test_names() -> None:
    assert tuple(ORDER) == IMPLEMENTATIONS
    with pytest.raises(ValueError, match="attention is 'fast'; allowed: flash, reference"):
        choose(CPU, "fast")
