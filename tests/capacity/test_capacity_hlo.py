"""The compiler's text, and what a program moves, counted by hand."""

import pytest

from capacity.compiled.hlo import parse
from capacity.compiled.traffic import Collective, traffic

MIB = 2**20


def program(body: str, more: str = "", aliases: str = "") -> str:
    header = f"HloModule jit_step, is_scheduled=true{aliases}, entry_computation_layout={{()->()}}"
    return f"{header}\n\n{more}\n\nENTRY %main (p: f32[1]) -> f32[1] {{\n{body}\n}}\n"


def test_shapes_and_operands() -> None:
    text = program(
        "  %a = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)\n"
        "  %b = (s8[3]{0}, /*index=1*/f32[2,2]{1,0:T(2,128)S(1)}) custom-call(%a, /*index=5*/%a), "
        'custom_call_target="x(y)", backend_config={"estimated_cycles":"12"}\n'
        "  ROOT %c = f32[2,2]{1,0} get-tuple-element(%b), index=1",
        aliases=", input_output_alias={ {0}: (7, {}, may-alias), {2}: (9, {}, may-alias) }",
    )
    module = parse(text)
    assert module.aliases == {0: 7, 2: 9}
    call = module.entry.by_name["b"]
    assert call.opcode == "custom-call" and call.operands == ("a", "a") and call.cycles == 12
    assert [shape.bytes for shape in call.shapes] == [3, 16]
    assert [shape.on_chip for shape in call.shapes] == [False, True]
    assert module.entry.root.name == "c"


def test_text_that_is_no_program() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("nothing")


def test_a_product_reads_its_operands_and_what_is_on_chip_is_free() -> None:
    found = traffic(
        parse(
            program(
                "  %w = bf16[1024,1024]{1,0} parameter(0)\n"
                "  %x = bf16[8,1024]{1,0:T(8,128)S(1)} parameter(1)\n"
                "  ROOT %y = f32[8,1024]{1,0} convolution(%x, %w), dim_labels=bf_io->bf"
            )
        )
    )
    assert (found.read, found.written) == (2 * MIB, 8 * 1024 * 4)


UPDATE = """%fused (a: s8[1048576], b: s8[16], i: s32[]) -> s8[1048576] {
  %a = s8[1048576]{0} parameter(0)
  %b = s8[16]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = s8[1048576]{0} dynamic-update-slice(%a, %b, %i)
}
"""


def test_an_update_in_place_costs_what_is_updated() -> None:
    found = traffic(
        parse(
            program(
                "  %cache = s8[1048576]{0} parameter(0)\n"
                "  %new = s8[16]{0} parameter(1)\n"
                "  %at = s32[] parameter(2)\n"
                "  ROOT %f = s8[1048576]{0} fusion(%cache, %new, %at), kind=kLoop, calls=%fused",
                UPDATE,
            )
        )
    )
    assert (found.read, found.written, found.copies) == (20, 16, ())


SLICE = """%fused (a: f32[1024,256], i: s32[]) -> f32[1,256] {
  %a = f32[1024,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %v = f32[1024,256]{1,0} bitcast(%a)
  ROOT %s = f32[1,256]{1,0} dynamic-slice(%v, %i, %i), dynamic_slice_sizes={1,256}
}
"""


def test_a_slice_costs_what_is_taken() -> None:
    found = traffic(
        parse(
            program(
                "  %table = f32[1024,256]{1,0} parameter(0)\n"
                "  %at = s32[] parameter(1)\n"
                "  ROOT %f = f32[1,256]{1,0} fusion(%table, %at), kind=kLoop, calls=%fused",
                SLICE,
            )
        )
    )
    assert (found.read, found.written) == (1024 + 4, 1024)


def test_whole_copies_are_named() -> None:
    found = traffic(
        parse(
            program(
                "  %cache = s8[4,1048576]{1,0} parameter(0)\n"
                "  ROOT %copy.1 = s8[4,1048576]{0,1} copy(%cache), "
                'metadata={op_name="cache[0].k"}'
            )
        )
    )
    assert found.bytes == 8 * MIB
    assert [(copy.what, copy.bytes) for copy in found.copies] == [
        ("s8[4,1048576] cache[0].k", 4 * MIB)
    ]


LOOP = """%body (t: (s32[], f32[256])) -> (s32[], f32[256]) {
  %t = (s32[], f32[256]{0:S(1)}) parameter(0)
  %one = s32[] constant(2)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[256]{0:S(1)} get-tuple-element(%t), index=1
  %next = s32[] add(%i, %one)
  %start = (f32[256]{0:S(1)}, f32[256]{0:S(1)}) collective-permute-start(%x)
  %done = f32[256]{0:S(1)} collective-permute-done(%start)
  ROOT %out = (s32[], f32[256]{0:S(1)}) tuple(%next, %done)
}

%condition (t: (s32[], f32[256])) -> pred[] {
  %t = (s32[], f32[256]{0:S(1)}) parameter(0)
  %limit = s32[] constant(7)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}
"""


@pytest.mark.parametrize(("known", "rounds"), [("", 4), ('known_trip_count":{"n":"9"}', 9)])
def test_loops_count_as_often_as_they_run(known: str, rounds: int) -> None:
    found = traffic(
        parse(
            program(
                "  %p = (s32[], f32[256]{0:S(1)}) parameter(0)\n"
                "  ROOT %w = (s32[], f32[256]{0:S(1)}) while(%p), condition=%condition, "
                f'body=%body, backend_config={{"{known}}}',
                LOOP,
            )
        )
    )
    assert found.collectives == {"collective-permute": Collective(rounds, rounds * 1024)}
    assert found.unsure == 0


BRANCHES = """%greedy (x: f32[256]) -> f32[256] {
  ROOT %x = f32[256]{0} parameter(0)
}

%noisy (x: f32[256]) -> f32[256] {
  %x = f32[256]{0} parameter(0)
  ROOT %y = f32[256]{0} negate(%x)
}
"""


def test_the_cheapest_branch_counts() -> None:
    found = traffic(
        parse(
            program(
                "  %i = s32[] parameter(0)\n"
                "  %x = f32[256]{0} parameter(1)\n"
                "  ROOT %c = f32[256]{0} conditional(%i, %x, %x), "
                "branch_computations={%noisy, %greedy}",
                BRANCHES,
            )
        )
    )
    assert found.bytes == 0


def test_collectives_by_what_a_chip_gives() -> None:
    found = traffic(
        parse(
            program(
                "  %x = bf16[64]{0} parameter(0)\n"
                "  %sum = bf16[64]{0} all-reduce(%x), to_apply=%add\n"
                "  %all = bf16[512]{0} all-gather(%sum), dimensions={0}\n"
                "  %s = (bf16[64]{0}, bf16[512]{0}) all-gather-start(%sum), dimensions={0}\n"
                "  ROOT %d = bf16[512]{0} all-gather-done(%s)",
                "%add (a: bf16[], b: bf16[]) -> bf16[] {\n  ROOT %a = bf16[] parameter(0)\n}",
            )
        )
    )
    assert found.collectives == {
        "all-reduce": Collective(1, 128),
        "all-gather": Collective(2, 2 * 1024),
    }


def test_what_a_kernel_changes_in_place_is_not_counted() -> None:
    found = traffic(
        parse(
            program(
                "  %cache = s8[1048576]{0} parameter(0)\n"
                "  %new = s8[16]{0} parameter(1)\n"
                "  ROOT %k = (s8[1048576]{0}, s8[8]{0}) custom-call(%new, %cache), "
                'custom_call_target="tpu_custom_call", '
                "output_to_operand_aliasing={{0}: (1, {})}"
            )
        )
    )
    assert (found.read, found.written) == (16, 8)


RELAID = """%view (x: s8[64,16384]) -> s8[64,16384] {
  %x = s8[64,16384]{1,0:T(32,128)(4,1)} parameter(0)
  ROOT %y = s8[64,16384]{1,0:T(8,128)(4,1)} copy(%x)
}

%fused (a: s8[64,16384], i: s32[]) -> s8[1,16384] {
  %a = s8[64,16384]{1,0:T(32,128)(4,1)} parameter(0)
  %i = s32[] parameter(1)
  %v = s8[64,16384]{1,0} fusion(%a), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, \
calls=%view
  ROOT %s = s8[1,16384]{1,0} dynamic-slice(%v, %i, %i), dynamic_slice_sizes={1,16384}
}
"""


def test_a_slice_of_what_is_only_called_otherwise() -> None:
    found = traffic(
        parse(
            program(
                "  %table = s8[64,16384]{1,0} parameter(0)\n"
                "  %at = s32[] parameter(1)\n"
                "  ROOT %f = s8[1,16384]{1,0} fusion(%table, %at), kind=kLoop, calls=%fused",
                RELAID,
            )
        )
    )
    assert (found.read, found.written) == (16384 + 4, 16384)
