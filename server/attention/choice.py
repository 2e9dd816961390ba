"""Which implementation of attention serves, in order, and why not one before it.

What an implementation cannot do makes the choice fall to the next.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jax.sharding import Mesh

from server.attention import cudnn, kernel, uncached
from server.attention.blockwise import attend_blocks
from server.attention.names import IMPLEMENTATIONS, MOST_SCORES
from server.attention.plain import PlainAttention
from server.attention.prefill import attend_chunk
from server.attention.rows import Attention
from server.attention.split import SplitAttention
from server.attention.uncached import SelfAttention, SelfChunk, UncachedAttention


@dataclass(frozen=True)
class Case:
    """What is to be served, and on what.

    compute: the type of activations. capability: an NVIDIA GPU's.
    no_kernel, no_cudnn: why the CPU kernel or cuDNN cannot be had, "" where it can.
    scores: bytes of the float32 scores of the largest chunk of prompt against the cache, per
    device; None without a cache.
    """

    platform: str
    head_dim: int
    compute: str
    alibi: bool
    capability: tuple[int, int] | None = None
    no_kernel: str = ""
    no_cudnn: str = ""
    scores: int | None = None
    int8_cache: bool = False


@dataclass(frozen=True)
class Choice:
    """`form` by its name; `passed`: (name, why not) of those before it that are for the platform.

    reads_live: whether it reads only live positions of a cache by itself. blockwise: whether chunks
    of prompt attend to the cache in blocks.
    """

    name: str
    form: Attention
    passed: tuple[tuple[str, str], ...]
    reads_live: bool
    blockwise: bool

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.passed)
        return f"{self.name} ({reasons})" if reasons else self.name


@dataclass(frozen=True)
class Implementation:
    """One way to attend, for some platforms or all (None).

    refuses: why it cannot serve a case; "" when it can. uncached, cached: the form of it.
    """

    platforms: tuple[str, ...] | None
    refuses: Callable[[Case], str]
    uncached: Callable[[Case, Mesh], Attention]
    cached: Callable[[Case, Mesh, PlainAttention], Attention]
    reads_live: bool = False


def attention(implementation: str, case: Case, mesh: Mesh, plain: PlainAttention) -> Choice:
    """The first of `ORDER[implementation]` that can serve the case.

    With `case.scores` a form that keeps keys and values in the cache (`FloatKV`, `Int8KV`): all its
    own, or `plain` (how single tokens attend, how the cache is read and written) with its own way
    for chunks. Without, one that keeps nothing (`NoKV`). ValueError names the implementations.
    """
    if implementation not in ORDER:
        raise ValueError(f"attention is {implementation!r}; allowed: {', '.join(IMPLEMENTATIONS)}")
    passed = []
    for name in ORDER[implementation]:
        candidate = IMPLEMENTED[name]
        if candidate.platforms is not None and case.platform not in candidate.platforms:
            continue
        if reason := candidate.refuses(case):
            passed.append((name, reason))
            continue
        if case.scores is None:
            form, blocks = candidate.uncached(case, mesh), False
        else:
            form = candidate.cached(case, mesh, plain)
            blocks = isinstance(form, PlainAttention) and form.chunk is not attend_chunk
        return Choice(name, form, tuple(passed), candidate.reads_live, blocks)
    raise ValueError(f"no implementation of {implementation} attention serves {case}: {passed}")


# ---- the implementations ----


def _refuses_cudnn(case: Case) -> str:
    reason = cudnn.refuses(case.capability, case.head_dim, case.compute, case.alibi)
    return reason or ("the KV cache is int8" if case.int8_cache else case.no_cudnn)


def _refuses_splash(case: Case) -> str:
    if case.alibi:
        return "it has no ALiBi"
    return "the KV cache is int8" if case.int8_cache else ""


def _refuses_blocks(case: Case) -> str:
    if case.scores is None:
        return ""
    if case.platform == "cpu":
        return "each layer of each program would take 0.1 s longer to compile"
    if case.scores <= MOST_SCORES:
        return f"the scores of a chunk take {case.scores / 2**20:.0f} MiB: made at once"
    return ""


def _blocks(case: Case) -> Callable:
    # CPU, 1 x 2,048 tokens of 9 heads: 110 ms with these, 141 with 128 and 256, 617 without blocks.
    return partial(attend_blocks, queries=64, keys=128) if case.platform == "cpu" else attend_blocks


def _with_flash(form: SelfAttention, case: Case, mesh: Mesh, plain: PlainAttention) -> Attention:
    """Chunks that have nothing before them by `form`, later ones in plain XLA."""
    chunk = attend_chunk if _refuses_blocks(case) else _blocks(case)
    return replace(plain, chunk=chunk, alone=UncachedAttention(SplitAttention(form, mesh)))


def _splash() -> SelfAttention:
    # Imported where it serves: Pallas takes a second to import.
    from server.attention.splash import SplashAttention

    return SplashAttention()


IMPLEMENTED = {
    "cudnn": Implementation(
        ("gpu",),
        _refuses_cudnn,
        lambda case, mesh: UncachedAttention(SplitAttention(cudnn.attend_cudnn, mesh)),
        lambda case, mesh, plain: _with_flash(cudnn.attend_cudnn, case, mesh, plain),
    ),
    "splash": Implementation(
        ("tpu",),
        _refuses_splash,
        lambda case, mesh: UncachedAttention(SplitAttention(_splash(), mesh)),
        lambda case, mesh, plain: _with_flash(_splash(), case, mesh, plain),
    ),
    "cpu-kernel": Implementation(
        ("cpu",),
        lambda case: case.no_kernel,
        lambda case, mesh: uncached.attend_in_kernel,
        lambda case, mesh, plain: kernel.attend_in_kernel,
        reads_live=True,
    ),
    "blockwise": Implementation(
        None,
        _refuses_blocks,
        lambda case, mesh: UncachedAttention(SelfChunk(_blocks(case))),
        lambda case, mesh, plain: replace(plain, chunk=_blocks(case)),
    ),
    "reference": Implementation(
        None,
        lambda case: "",
        lambda case, mesh: uncached.reference,
        lambda case, mesh, plain: plain,
    ),
}

ORDER: dict[str, tuple[str, ...]] = {
    "flash": ("cudnn", "splash", "cpu-kernel", "blockwise", "reference"),
    "reference": ("reference",),
}
