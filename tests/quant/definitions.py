"""What each scheme is, written down a second time: NumPy, one value or block after the other.

Shares nothing with the server. Formulas that round are in float32, as they are defined; the rest is
float64.
"""

from functools import cache
from statistics import NormalDist

import numpy as np

SCHEMES = ("none", "bf16", "int8", "int8-dynamic", "int8-decomp", "nf4", "nf4-dq", "int4", "fp8")
OUTLIER = 6.0


def product(scheme: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x [M, in] against w [N, in] as the scheme stores and rounds them."""
    kept = stored(scheme, w)
    if scheme == "bf16":
        return nearest_bf16(x) @ kept.T
    if scheme == "int8-dynamic":
        return rounded_rows(x) @ kept.T
    if scheme == "int8-decomp":
        far = np.abs(x) >= OUTLIER
        columns = far.any(axis=0)
        near = rounded_rows(np.where(far, np.float32(0), x)) * ~columns
        return near @ kept.T + (x * columns).astype(np.float64) @ kept.T
    return x.astype(np.float64) @ kept.T


def stored(scheme: str, w: np.ndarray) -> np.ndarray:
    """What is left of w, float64."""
    if scheme == "none":
        return w.astype(np.float64)
    if scheme == "bf16":
        return nearest_bf16(w)
    return np.stack([_stored_row(scheme, row) for row in w]) if scheme != "nf4-dq" else _dq(w)


def nearest_bf16(x: np.ndarray) -> np.ndarray:
    """float32 cut to its first 16 bits, float64: to nearest, ties to the even one. Not for NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    upper, rest = bits >> 16, bits & 0xFFFF
    upper += (rest > 0x8000) | ((rest == 0x8000) & (upper % 2 == 1))
    return (upper << 16).astype(np.uint32).view(np.float32).astype(np.float64)


def rounded_rows(x: np.ndarray) -> np.ndarray:
    """Each row in 127 steps of its largest value."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    inverse = np.float32(127) / np.maximum(largest, np.float32(1e-30))
    return np.rint(x * inverse).astype(np.float64) * (largest / np.float32(127))


@cache
def nf4_table() -> tuple[float, ...]:
    """16 values: quantiles of a normal distribution at equal steps of probability from 0.5 to
    0.9677083, 7 of them below zero and 8 above, zero between, over the largest."""
    end = 0.9677083
    below = [-NormalDist().inv_cdf(end + (0.5 - end) * i / 7) for i in range(7)]
    above = [NormalDist().inv_cdf(end + (0.5 - end) * i / 8) for i in range(8)]
    values = sorted([*below, 0.0, *above])
    return tuple(value / values[-1] for value in values)


def nf4_codes(block: np.ndarray) -> tuple[list[int], np.float32]:
    """The nearest of the table for each, and the scale of a block."""
    scale = np.abs(block).max()
    table = np.asarray(nf4_table())
    scaled = [0.0 if scale == 0 else float(x * (np.float32(1) / scale)) for x in block]
    return [int(np.abs(table - x).argmin()) for x in scaled], scale


def dq_levels() -> list[float]:
    """256 levels of 8 bits: a sign, a run of zeros that says the decade, and the rest of the bits
    as equal steps from 0.1 to 1 in it; 0 and 1 take the two codes that are left."""
    levels = [0.0, 1.0]
    for zeros in range(7):
        steps = 2 ** (6 - zeros)
        for step in range(steps):
            middle = 0.1 + 0.9 * (step + 0.5) / steps
            levels += [middle * 10.0**-zeros, -middle * 10.0**-zeros]
    return sorted(levels)


def dq_scales(scales: np.ndarray) -> np.ndarray:
    """[N, G] scales as 8-bit levels of 256 at a time, the mean of all apart."""
    flat = scales.reshape(-1)
    mean = np.float32(flat.astype(np.float64).mean())
    levels = np.asarray(dq_levels())
    kept = []
    for start in range(0, flat.size, 256):
        group = flat[start : start + 256] - mean
        spread = np.abs(group).max()
        inverse = np.float32(1) / max(spread, np.float32(1e-38))
        nearest = [np.abs(levels - float(x * inverse)).argmin() for x in group]
        kept += [float(np.float32(levels[i]) * spread + mean) for i in nearest]
    return np.asarray(kept).reshape(scales.shape)


@cache
def fp8_values() -> np.ndarray:
    """By code: what e4m3fn's bits mean; NaN for the two codes without a value."""
    values = []
    for code in range(256):
        exponent, fraction = code >> 3 & 15, code & 7
        size = fraction * 2.0**-9 if exponent == 0 else (8 + fraction) * 2.0 ** (exponent - 10)
        values.append(np.nan if code & 127 == 127 else -size if code >> 7 else size)
    return np.asarray(values)


def _stored_row(scheme: str, row: np.ndarray) -> np.ndarray:
    if scheme.startswith("int8"):
        return _steps(row, 127)
    if scheme == "int4":
        return np.concatenate([_steps(row[i : i + 128], 7) for i in range(0, len(row), 128)])
    if scheme == "nf4":
        return np.concatenate([_nf4_block(row[i : i + 64]) for i in range(0, len(row), 64)])
    assert scheme == "fp8"
    scale = np.abs(row).max() / np.float32(448)
    return _nearest_fp8(row / (scale or np.float32(1))) * float(scale)


def _steps(block: np.ndarray, count: int) -> np.ndarray:
    scale = np.abs(block).max() / np.float32(count)
    return np.rint(block / (scale or np.float32(1))).astype(np.float64) * float(scale)


def _nf4_block(block: np.ndarray) -> np.ndarray:
    codes, scale = nf4_codes(block)
    return np.asarray(nf4_table(), np.float32).astype(np.float64)[codes] * float(scale)


def _dq(w: np.ndarray) -> np.ndarray:
    blocks = [[row[i : i + 64] for i in range(0, len(row), 64)] for row in w]
    codes = [[nf4_codes(block) for block in row] for row in blocks]
    scales = dq_scales(np.asarray([[scale for _, scale in row] for row in codes], np.float32))
    table = np.asarray(nf4_table(), np.float32).astype(np.float64)
    rows = zip(codes, scales, strict=True)
    return np.stack(
        [
            np.concatenate([table[c] * s for (c, _), s in zip(row, kept, strict=True)])
            for row, kept in rows
        ]
    )


def _nearest_fp8(x: np.ndarray) -> np.ndarray:
    """Ties to the even fraction."""
    values = fp8_values()
    gaps = np.nan_to_num(np.abs(np.subtract.outer(x.astype(np.float64), values)), nan=np.inf)
    nearest = gaps == gaps.min(axis=1, keepdims=True)
    even = nearest & (np.arange(256) % 2 == 0)
    return values[np.where(even.any(axis=1), even.argmax(axis=1), nearest.argmax(axis=1))]
