"""The ways to store weights, by name: what they are and what they take. Imports no JAX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """How the matrices of the layers are stored.

    code_bits: of one weight. block: inputs that share a scale, None where a whole output channel
    does or nothing is scaled. scale_bits: of one scale, 0 where nothing is scaled. group: scales
    that share a float32 constant of their own, where scales are quantized too. head: the scheme
    that the output head takes. products: the type of what is multiplied, None for the compute type.
    text: one line for people.
    """

    name: str
    code_bits: int
    text: str
    block: int | None = None
    scale_bits: int = 32
    group: int | None = None
    head: str = "int8"
    products: str | None = None

    @property
    def quantized(self) -> bool:
        """Whether weights are codes with scales, not floating-point numbers as they are."""
        return self.scale_bits > 0

    def bytes(self, outputs: int, inputs: int) -> int:
        """What a matrix of this many outputs and inputs takes, rounded up to whole blocks.

        `none` counts 16 bits, as accelerators compute; CPUs compute and store 32.
        """
        scales = outputs
        if self.block is not None:
            scales *= -(-inputs // self.block)
            inputs = -(-inputs // self.block) * self.block
        total = outputs * inputs * self.code_bits // 8 + scales * self.scale_bits // 8
        if self.group is not None:
            total += 4 * (-(-scales // self.group) + 1)  # and the mean of all scales
        return total


_ALL = (
    Scheme("none", 16, "as computed: bfloat16, on CPUs float32", scale_bits=0, head="none"),
    Scheme(
        "bf16",
        16,
        "bfloat16 weights; in products activations are rounded to bfloat16, sums in float32",
        scale_bits=0,
        head="bf16",
        products="bf16",
    ),
    Scheme("int8", 8, "int8 weights, a scale per output channel; exact activations"),
    Scheme(
        "int8-dynamic", 8, "int8 weights and int8 activations, a scale per row", products="int8"
    ),
    Scheme(
        "int8-decomp",
        8,
        "LLM.int8(): int8-dynamic, but activations from 6.0 up stay exact",
        products="int8",
    ),
    Scheme("nf4", 4, "4-bit NormalFloat, a float32 scale for 64 weights", block=64),
    Scheme(
        "nf4-dq",
        4,
        "nf4 with 8-bit scales (double quantization)",
        block=64,
        scale_bits=8,
        group=256,
    ),
    Scheme("int4", 4, "symmetric 4-bit integers, a float32 scale for 128 weights", block=128),
    Scheme("fp8", 8, "8-bit floating point (e4m3), a scale per output channel"),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}
