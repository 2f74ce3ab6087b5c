"""Cycles and places, read from the text of compiled programs."""

import json

import pytest

from spade_jax.aot import estimate, origins
from spade_jax.aot.hlo_program import Program
from spade_jax.aot.kernels import Bundles, Kernel, kernel_of, read_profile

NEVER = 2**63 - 1


def cycles(number):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{number}"}}}}'


def origin(name):
    return f'metadata={{op_name="jit(step)/{name}" stack_frame_id=1}}'


PROGRAM = f"""\
HloModule jit_step, is_scheduled=true

%matmul (p.1: f32[8,8], p.2: f32[8,8]) -> f32[8,8] {{
  %p.1 = f32[8,8]{{1,0}} parameter(0)
  %p.2 = f32[8,8]{{1,0}} parameter(1)
  %dot.1 = f32[8,8]{{1,0}} convolution(%p.1, %p.2), dim_labels=bf_io->bf, \
{origin("transpose(jvp(place.feed-forward))/dot_general")}
  ROOT %add.1 = f32[8,8]{{1,0}} add(%dot.1, %p.2), {origin("jvp(place.norms)/add")}
}}

%body (t: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {{
  %t = (s32[], f32[8,8]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[8,8]{{1,0}} get-tuple-element(%t), index=1
  %copy.1 = f32[8,8]{{0,1}} copy(%x), {cycles(5)}
  %bitcast.1 = f32[8,8]{{1,0}} bitcast(%copy.1)
  %fusion.1 = f32[8,8]{{1,0}} fusion(%bitcast.1, %x), kind=kOutput, calls=%matmul, \
{origin("jvp(place.norms)/add")}, {cycles(100)}
  %sum = f32[8,8]{{1,0}} all-reduce(%fusion.1), replica_groups={{{{0,1}}}}, to_apply=%add, \
{cycles(1000)}
  %lost = f32[8,8]{{1,0}} negate(%x), {cycles(2)}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %r = (s32[], f32[8,8]{{1,0}}) tuple(%next, %sum)
}}

%condition (t.1: (s32[], f32[8,8])) -> pred[] {{
  %t.1 = (s32[], f32[8,8]{{1,0}}) parameter(0)
  %i.1 = s32[] get-tuple-element(%t.1), index=0
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}}

%cheap (c.1: f32[8,8]) -> f32[8,8] {{
  %c.1 = f32[8,8]{{1,0}} parameter(0)
  ROOT %cheap.1 = f32[8,8]{{1,0}} negate(%c.1), {cycles(10)}
}}

%dear (d.1: f32[8,8]) -> f32[8,8] {{
  %d.1 = f32[8,8]{{1,0}} parameter(0)
  %dear.1 = f32[8,8]{{1,0}} negate(%d.1), {cycles(30)}, \
{origin("transpose(jvp(place.layers))/checkpoint/rematted_computation/place.norms/neg")}
  ROOT %dear.2 = f32[8,8]{{1,0}} exponential(%dear.1), {cycles(1)}
}}

ENTRY %main (a: f32[8,8], b: pred[]) -> f32[8,8] {{
  %a = f32[8,8]{{1,0}} parameter(0)
  %b = pred[] parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,8]{{1,0}}) tuple(%zero, %a)
  %loop = (s32[], f32[8,8]{{1,0}}) while(%start), condition=%condition, body=%body, \
{origin("jvp(place.loop_over_layers)/while")}
  %y = f32[8,8]{{1,0}} get-tuple-element(%loop), index=1
  %z = f32[8,8]{{1,0}} conditional(%b, %y, %y), true_computation=%cheap, false_computation=%dear
  %forever = f32[8,8]{{1,0}} sort(%z), {origin("place.optimiser/sort")}, {cycles(NEVER)}
  %apart = f32[8,8]{{1,0}} negate(%forever), {origin("neg")}, {cycles(7)}
  ROOT %alone = f32[8,8]{{1,0}} negate(%a), {cycles(11)}
}}
"""


@pytest.fixture(scope="module")
def parts():
    found = estimate.work(Program.of(PROGRAM), {})
    return {part.name: part for part in found}


def test_loops_multiply_and_the_dearest_branch_counts(parts):
    counted = {name: (part.times, part.all_cycles) for name, part in parts.items()}
    assert counted == {
        "copy.1": (3, 15),
        "fusion.1": (3, 300),
        "lost": (3, 6),
        "dear.1": (1, 30),
        "dear.2": (1, 1),
        "apart": (1, 7),
        "alone": (1, 11),
    }
    assert estimate.total_cycles(parts.values()) == 370


def test_what_is_no_number_of_cycles_is_none():
    program = Program.of(PROGRAM)
    found = {i.name: i.estimated_cycles for i in program.computations[program.entry]}
    assert found["forever"] is None
    assert found["apart"] == 7


@pytest.mark.parametrize(
    ("name", "place", "phase"),
    [
        # A fusion is where its matmul is, and a copy where what it feeds is.
        ("fusion.1", "feed-forward", "backward"),
        ("copy.1", "feed-forward", "backward"),
        # What nothing near tells of is where its loop is.
        ("lost", "loop over layers", "forward"),
        ("dear.1", "norms", "recomputed"),
        ("dear.2", "norms", "recomputed"),
        ("apart", origins.ELSEWHERE, ""),
        ("alone", origins.UNKNOWN, ""),
    ],
)
def test_places(parts, name, place, phase):
    assert (parts[name].place, parts[name].phase) == (place, phase)


CALL = """\
ENTRY %main (a: bf16[64,128]) -> f32[64,128] {
  %a = bf16[64,128]{1,0} parameter(0)
  ROOT %call.1 = f32[64,128]{1,0} custom-call(%a, %a), custom_call_target="tpu_custom_call", \
operand_layout_constraints={bf16[64,128]{1,0}, bf16[64,128]{1,0}}, \
metadata={op_name="jit(f)/place.window_attention/pallas_call" stack_frame_id=4}, \
backend_config={"flag_configs":[],"scoped_memory_configs":[],"custom_call_config":\
{"body":"TUzv+/=","needs_layout_passes":true},"used_scoped_memory_configs":[]CYCLES}
}
"""


@pytest.mark.parametrize("declared", [None, 40])
def test_kernels_are_counted_by_bundles_or_as_they_say_or_not_at_all(declared):
    more = "" if declared is None else f',"window_config":{{"estimated_cycles":"{declared}"}}'
    program = Program.of(CALL.replace("CYCLES", more))
    (kernel,) = estimate.kernels(program)
    array = ("bf16", (64, 128))
    assert (kernel.operands, kernel.results) == ((array, array), (("f32", (64, 128)),))
    assert json.loads(kernel.settings)["custom_call_config"]["body"] == "TUzv+/="
    for known, source in ((True, estimate.BUNDLES), (False, estimate.ONE_ROUND)):
        (counted,) = estimate.work(program, {kernel: Bundles(300, all_rounds=known)})
        assert (counted.cycles, counted.source) == (300, source)
    (unknown,) = estimate.work(program, {})
    assert (unknown.cycles, unknown.source) == (declared, estimate.DECLARED)
    assert unknown.place == "window attention"


def test_other_calls_are_no_kernels():
    program = Program.of(CALL.replace("tpu_custom_call", "AllocateBuffer").replace("CYCLES", ""))
    (instruction,) = (i for i in program.computations["main"] if i.kind == "custom-call")
    assert kernel_of(instruction, {}) is None
    assert estimate.work(program, {}) == []


def test_equal_kernels_are_one():
    one, other = (Kernel((("f32", (8,)),), (("f32", (8,)),), "{}") for _ in range(2))
    assert len({one, other}) == 1


def test_profiles():
    text = 'hlo_op_estimate {\n  hlo_op_name: "NAME"\n  estimated_cycles: 1105419\n}\n'
    call, copy = text.replace("NAME", "ffi_call.1"), text.replace("NAME", "copy.3")
    assert read_profile([copy, call]) == 1105419
    assert read_profile([copy]) is None
    assert read_profile([]) is None
