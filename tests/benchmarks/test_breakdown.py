"""Where a device's time goes: traces as profilers write them, and one of this machine's."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.accelerator import breakdown
from benchmarks.accelerator.breakdown import Event
from spade_jax.places import place

TEXT = """HloModule jit_step

%fused.1 (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %m = f32[8]{0} multiply(%p, %p), metadata={op_name="jit(step)/jvp(place.norms)/mul"}
}

%graph (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %loop_fusion.2 = f32[8]{0} fusion(%q), kind=kLoop, calls=%fused.1, \
metadata={op_name="jit(step)/transpose(jvp(place.norms))/mul"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %loop_fusion.1 = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused.1, \
metadata={op_name="jit(step)/jvp(place.state_space_carry)/mul"}
  %copy.1 = f32[8]{0} copy(%loop_fusion.1)
  ROOT %call.1 = f32[8]{0} call(%copy.1), to_apply=%graph
}
"""


def event(pid, tid, name, start, duration, **told):
    return {
        "ph": "X", "pid": pid, "tid": tid, "name": name, "ts": start, "dur": duration, "args": told
    }  # fmt: skip


def named(kind, name, pid, tid=0):
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def test_the_streams_of_the_first_gpu():
    trace = [
        named("process_name", "/device:GPU:0", 1),
        named("process_name", "/device:GPU:1", 2),
        named("process_name", "/host:CPU", 3),
        named("thread_name", "Stream #13(Compute)", 1, 5),
        named("thread_name", "XLA Ops", 1, 6),
        named("thread_name", "Stream #13(Compute)", 2, 5),
        event(1, 5, "kernel", 0, 7, hlo_op="loop_fusion.1", tf_op="jit(step)/mul:"),
        event(1, 5, "MemcpyD2D", 8, 2),
        # While the one before ends, and within it.
        event(1, 5, "after", 9, 3),
        event(1, 5, "beside", 10, 1),
        event(1, 6, "loop_fusion.1", 0, 7, hlo_op="loop_fusion.1"),
        event(2, 5, "kernel", 0, 7),
        event(3, 5, "cuLaunchKernel", 0, 1, hlo_op="loop_fusion.1"),
    ]
    assert breakdown.device_events({"traceEvents": trace}) == [
        Event("kernel", "loop_fusion.1", "jit(step)/mul:", 7),
        Event("MemcpyD2D", "", "", 2),
        Event("after", "", "", 2),
        Event("beside", "", "", 0),
    ]


def test_what_runs_within_another_counts_once():
    trace = [
        event(1, 1, "while.1", 0, 10, hlo_op="while.1"),
        event(1, 1, "a", 1, 3, hlo_op="a"),
        event(1, 1, "b", 4, 4, hlo_op="b"),
        event(1, 1, "c", 5, 1, hlo_op="c"),
        event(1, 1, "d", 10, 2, hlo_op="d"),
        event(1, 2, "e", 2, 9, hlo_op="e"),
    ]
    own = {e.name: e.microseconds for e in breakdown.device_events({"traceEvents": trace})}
    assert own == {"while.1": 3, "a": 3, "b": 3, "c": 1, "d": 2, "e": 9}


def test_kernels_belong_to_places():
    events = [
        Event("some_kernel", "loop_fusion.1", "", 6000.0),
        # Of a graph: by the kernel's name, by what the trace says, or by the graph as a whole.
        Event("loop_fusion_2", "call.1", "", 2000.0),
        Event("gemm", "", "jit(step)/jvp(place.feed-forward)/dot", 1000.0),
        Event("MemcpyD2D", "copy.1", "", 4.0),
        Event("unheard_of", "", "", 996.0),
    ]
    found = breakdown.break_down(events * 2, TEXT, updates=2)
    assert found.milliseconds == pytest.approx(10.0)
    assert found.kernels == 5
    assert (found.copies, found.copies_milliseconds) == (1, pytest.approx(0.004))
    assert (found.short, found.short_milliseconds) == (1, pytest.approx(0.004))
    assert found.state_space == pytest.approx(0.6004)
    places = {place.name: place for place in found.places}
    assert [*places] == ["state space carry", "norms", "feed-forward", "not attributed"]
    assert places["norms"].phases["backward"] == pytest.approx(2.0)
    # The copy belongs to what feeds it, for what it feeds says nothing.
    assert places["state space carry"].kernels == 2
    assert places["state space carry"].phases["forward"] == pytest.approx(6.004)


def test_a_trace_of_this_machine():
    @jax.jit
    def step(state, batch):
        with place("feed-forward"):
            state = jnp.tanh(state @ batch)
        with place("norms"):
            return jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(jnp.flip(x)), state), state.sum()

    state = batch = jnp.ones((256, 256))
    compiled = step.lower(state, batch).compile()
    jax.block_until_ready(compiled(state, batch))
    trace = breakdown.record(compiled, state, batch, 2)
    found = breakdown.break_down(breakdown.device_events(trace), compiled.as_text(), 2)
    took = {place.name: place.milliseconds for place in found.places}
    assert took["feed-forward"] > 0
    assert took["norms"] > 0
    assert sum(took.values()) == pytest.approx(found.milliseconds)
    assert found.state_space == 0
