"""Operations and collectives counted in the text of compiled programs."""

from pathlib import Path

import numpy as np
import pytest

from spade_jax.aot import hlo
from spade_jax.aot.hlo_text import device_groups

MESH = {"data": 1, "fsdp": 4, "tensor": 1, "sequence": 2}


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}, dim", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups=[2,4]<=[4,2]T(1,0), dim", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("replica_groups=[4,2]<=[8], dim", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups={}, dim", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (
            "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] {'axis_0'}, dim",
            [[0, 2, 4, 6], [1, 3, 5, 7]],
        ),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_0'}, dim",
            [[0, 1], [2, 3], [4, 5], [6, 7]],
        ),
        ("source_target_pairs={{0,1},{2,3}}, metadata={}", [[0, 1], [2, 3]]),
    ],
)
def test_groups_of_devices_in_each_notation(attributes, groups):
    np.testing.assert_array_equal(device_groups(attributes, 8), groups)


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ([[0, 1], [6, 7]], ("sequence",)),
        ([[0, 2, 4, 6]], ("fsdp",)),
        ([[0, 1, 2, 3, 4, 5, 6, 7]], ("fsdp", "sequence")),
        ([[1, 2]], ("fsdp", "sequence")),
        ([[0], [1]], ()),
    ],
)
def test_groups_run_over_mesh_axes(groups, axes):
    assert hlo.group_axes(np.array(groups), MESH) == axes


PROGRAM = """\
HloModule jit_step, is_scheduled=true

%gather (p: bf16[8,16]) -> bf16[32,16] {
  %p = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[32,16]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, \
replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}, metadata={op_name="jit(step)/dot_general"}
}

%gather.clone (p.1: bf16[8,16]) -> bf16[32,16] {
  %p.1 = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0} all-gather(%p.1), channel_id=7, \
replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}, metadata={op_name="jit(step)/dot_general"}
}

%body (t: (s32[], f32[2,3], bf16[8,16])) -> (s32[], f32[2,3], bf16[8,16]) {
  %t = (s32[], f32[2,3]{1,0}, bf16[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[2,3]{1,0} get-tuple-element(%t), index=1
  %w = bf16[8,16]{1,0} get-tuple-element(%t), index=2
  %f.1 = bf16[32,16]{1,0} fusion(%w), kind=kCustom, calls=%gather
  %f.2 = bf16[32,16]{1,0} fusion(%w), kind=kCustom, calls=%gather.clone
  %q = f32[3,3]{1,0} dot(%x, %x), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  %s = (f32[2,3]{1,0}, f32[2,3]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=8, \
source_target_pairs={{0,1},{2,3},{4,5},{6,7}}
  %d = f32[2,3]{1,0} collective-permute-done(%s)
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  ROOT %r = (s32[], f32[2,3]{1,0}, bf16[8,16]{1,0}) tuple(%next, %d, %w)
}

%condition (t.1: (s32[], f32[2,3], bf16[8,16])) -> pred[] {
  %t.1 = (s32[], f32[2,3]{1,0}, bf16[8,16]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%t.1), index=0
  %limit = s32[] constant(11)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[2,3], b: bf16[8,16]) -> f32[2,3] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = bf16[8,16]{1,0} parameter(1)
  %one = s32[] constant(1)
  %start = (s32[], f32[2,3]{1,0}, /*index=2*/bf16[8,16]{1,0}) tuple(%one, %a, %b)
  %loop = (s32[], f32[2,3]{1,0}, bf16[8,16]{1,0}) while(%start), condition=%condition, body=%body
  %alone = f32[2,3]{1,0} all-reduce(%a), channel_id=9, replica_groups=[8,1]<=[8], to_apply=%sum
  ROOT %y = f32[2,3]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_loops_multiply_and_parts_of_a_collective_count_once():
    cost = hlo.count(PROGRAM, MESH)
    assert cost.flops == 5 * 2 * 3 * 3 * 2  # From 1 to 11 in steps of 2.
    seen = [(c.kind, c.axes, c.bytes, c.shapes[0], c.source, n) for c, n in cost.collectives]
    assert seen == [
        ("all-gather", ("fsdp",), 4 * 8 * 16 * 2, (32, 16), "jit(step)/dot_general", 5),
        ("collective-permute", ("sequence",), 2 * 3 * 4, (2, 3), "", 5),
    ]


def test_reduce_scatters_of_one_channel_are_so_many():
    body = """\
  %p = f32[8,16]{1,0} parameter(0)
  %all-reduce = f32[8,16]{1,0} all-reduce(%p), channel_id=1, \
replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%sum
  ROOT %own = f32[2,16]{1,0} dynamic-slice(%all-reduce, %p, %p), dynamic_slice_sizes={2,16}
}
"""
    program = f"""\
HloModule jit_step, is_scheduled=true

%all-reduce-scatter.1 (p: f32[8,16]) -> f32[2,16] {{
{body}
%all-reduce-scatter.2 (p: f32[8,16]) -> f32[2,16] {{
{body}
ENTRY %main (a: f32[8,16]) -> f32[2,16] {{
  %a = f32[8,16]{{1,0}} parameter(0)
  %first = f32[2,16]{{1,0}} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %second = f32[2,16]{{1,0}} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.2
}}
"""
    (first, once), (second, again) = hlo.count(program, MESH).collectives
    assert (first, once, again) == (second, 1, 1)
    assert (first.kind, first.axes, first.bytes) == ("reduce-scatter", ("fsdp",), 8 * 16 * 4)


def test_gpu_matmuls_are_calls_of_cublas():
    program = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (a: bf16[64,8], b: bf16[64,16]) -> bf16[8,16] {
  %a = bf16[64,8]{1,0} parameter(0)
  %b = bf16[64,16]{1,0} parameter(1)
  %custom-call.64 = (bf16[8,16]{1,0}, s8[33554432]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"beta":0,\
"dot_dimension_numbers":{"lhs_batch_dimensions":[],"lhs_contracting_dimensions":["0"],\
"rhs_batch_dimensions":[],"rhs_contracting_dimensions":["0"]}}}
  ROOT %get = bf16[8,16]{1,0} get-tuple-element(%custom-call.64), index=0
}
"""
    assert hlo.count(program, {"data": 1}).flops == 2 * 64 * 8 * 16


def test_what_goes_between_slices():
    program = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (p: f32[256,8,128]) -> f32[256,8,128] {
  %p = f32[256,8,128]{2,1,0:T(8,128)} parameter(0)
  %after-all = token[] after-all()
  %send = (f32[256,8,128]{2,1,0}, u32[], token[]) send(%p, %after-all), channel_id=2, \
is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",\
_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[256,8,128]{2,1,0}, u32[], token[]) recv(%after-all), channel_id=1, \
is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv-done = (f32[256,8,128]{2,1,0}, token[]) recv-done(%recv), channel_id=1
  ROOT %get = f32[256,8,128]{2,1,0} get-tuple-element(%recv-done), index=0
}
"""
    [(collective, times)] = hlo.count(program, MESH).collectives
    assert (collective.kind, collective.axes, times) == ("all-reduce", ("slices",), 1)
    assert collective.bytes == 256 * 8 * 128 * 4


def test_tpu_matmuls_are_convolutions():
    program = """\
ENTRY %main (a: bf16[12,8,128,64], b: bf16[12,8,384,64]) -> f32[12,8,128,384] {
  %a = bf16[12,8,128,64]{3,2,1,0} parameter(0)
  %b = bf16[12,8,384,64]{3,2,1,0} parameter(1)
  ROOT %c = f32[12,8,128,384]{3,2,1,0} convolution(%a, %b), \
window={size=12x8 stride=11x7 lhs_dilate=12x8}, dim_labels=01bf_01oi->01bf
}
"""
    assert hlo.count(program, MESH).flops == 2 * 12 * 8 * 128 * 384 * 64


def test_collectives_of_a_compiled_program(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_compiled.py"))
    # Three layers: weights [8, 8] gathered over fsdp, sums of [2, 8] over tensor, in float32.
    assert report["flops"] == 3 * 2 * 2 * 8 * 4
    assert ["all-gather", ["fsdp"], 8 * 4 * 4, 3] in report["collectives"]
    assert ["all-reduce", ["tensor"], 2 * 8 * 4, 3] in report["collectives"]
    assert len(report["collectives"]) == 2
