"""What of attention the kernels for GPUs alone have."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from full_inputs import inputs

from spade_jax import partition
from spade_jax.layers import stack
from spade_jax.ops import dispatch
from spade_jax.ops.attention import full, window
from spade_jax.ops.attention.pallas_gpu import backend, operations, plan
from spade_jax.ops.attention.pallas_gpu.flash import flash_attention
from spade_jax.ops.dispatch import Unsupported


def kernels(jaxpr):
    """How often each kernel is in a program whose results are used, by its name: JAX leaves others
    for XLA to remove."""
    found = collections.Counter()
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars} | {*map(id, jaxpr.outvars)}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found[equation.params["name"]] += any(id(v) in used for v in equation.outvars)
            continue
        for inner in jax.tree.leaves(
            [*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += kernels(inner)
    return found


def layers(attention, remat):
    """The gradient of two layers, each attention and a linear map, by the stack's policy."""

    def total(x, weights):
        def step(x, weight):
            q, k, v = (jnp.einsum("blhk,km->blhm", x, part) for part in weight)
            return x + attention(q, k, v), None

        step = jax.checkpoint(step, policy=stack._POLICIES[remat], prevent_cse=False)
        return jnp.sum(jax.lax.scan(step, x, weights)[0])

    x, weights = jnp.zeros((1, 40, 2, 16)), jnp.zeros((2, 3, 16, 16))
    return jax.make_jaxpr(jax.grad(total, (0, 1)))(x, weights)


ATTENTIONS = {
    "window": lambda q, k, v: window.window_attention(
        q, k, v, radius=9, causal=False, bias=jnp.zeros((2, 19)), implementation="pallas_gpu"
    ),
    "causal": lambda q, k, v: full.full_attention(
        q, k, v, causal=True, bias=jnp.zeros((2, 19)), implementation="pallas_gpu"
    ),
}


GRADIENTS = ("attention_dq", "attention_dkv", "attention_dbias")


@pytest.mark.parametrize("name", ATTENTIONS)
def test_rematerialisation_runs_no_kernel_twice(name):
    """What was attended and its log-sums are kept by their name; without that they are not."""
    with dispatch.interpreted():
        kept = kernels(layers(ATTENTIONS[name], "dots").jaxpr)
        forgotten = kernels(layers(ATTENTIONS[name], "full").jaxpr)
    assert kept == dict.fromkeys(("attention", *GRADIENTS), 1)
    assert forgotten == dict.fromkeys(GRADIENTS, 1) | {"attention": 2}


def test_what_is_attended_is_kept_once():
    """By the kernel's name for it: the layer's output needs no second copy."""
    with dispatch.interpreted():
        program = layers(ATTENTIONS["causal"], "dots").jaxpr
    (forward,) = [
        equation
        for equation in program.eqns
        if equation.primitive.name == "scan"
        and kernels(equation.params["jaxpr"].jaxpr)["attention"]
    ]
    shapes = collections.Counter(out.aval.shape for out in forward.outvars)
    assert shapes[(2, 1, 2, 40)] == 1  # Log-sums.
    # Of the queries, keys, values and what is attended; and the layer's input.
    assert shapes[(2, 1, 40, 2, 16)] <= 5


def refusal(attention, **settings):
    with pytest.raises(Unsupported) as caught:
        attention(**settings, implementation="pallas_gpu")
    return str(caught.value)


def attend(dtype="bfloat16", size=16, width=None, implementation=None):
    query, key, value = (jnp.asarray(array, dtype) for array in inputs(4, 4, size=size))
    value = value if width is None else value[..., :width]
    return full.full_attention(query, key, value, causal=False, implementation=implementation)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="here they run")
def test_kernels_are_refused_where_there_is_no_gpu():
    assert "implementation 'pallas_gpu' runs on a gpu, and this is for a cpu; xla can" in refusal(
        attend
    )


def test_what_the_hardware_does_not_take_is_refused(monkeypatch):
    with dispatch.interpreted():
        assert "takes heads of 16, 32, 64, 128, and these have 24 features; xla" in refusal(
            attend, size=24
        )
        assert "takes values as wide as queries, 16, and these have 8 features" in refusal(
            attend, width=8
        )
        assert "takes bfloat16, float16, float32, and this is int8; xla can" in refusal(
            attend, dtype="int8"
        )
        monkeypatch.setattr(backend, "triton", None)
        assert f"needs Pallas's Triton lowering, which jax {jax.__version__} lacks" in refusal(
            attend
        )


@pytest.mark.parametrize(("capability", "named"), [("7.5", "'7.5'"), ("gfx90a", "'gfx90a'")])
def test_gpus_before_ampere_are_refused(monkeypatch, capability, named):
    class Device:
        compute_capability = capability

    monkeypatch.setattr(operations.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(operations.jax, "local_devices", lambda: [Device])
    assert operations.refuses(*inputs(4, 4)) == (
        f"needs an NVIDIA GPU of compute capability 8.0 or more, and this one's is {named}"
    )
    Device.compute_capability = "8.0"
    assert operations.refuses(*inputs(4, 4)) is None


def test_a_gpu_s_default_are_the_kernels_but_for_float32(monkeypatch):
    monkeypatch.setattr(partition, "platform", lambda: "gpu")
    operation = full.FULL_ATTENTION
    settings = dict(causal=False, dropout_rate=0.0)
    segment_ids = np.ones((2, 4), np.int32)
    for dtype, best in (("bfloat16", "pallas_gpu"), ("float16", "pallas_gpu"), ("float32", "xla")):
        arrays = [jnp.asarray(array, dtype) for array in inputs(4, 4)]
        chosen = operation.choose(None, *arrays, None, segment_ids, None, None, **settings)
        assert chosen is operation.implementations[best].function
    # By its name float32 is taken as well.
    named = operation.choose("pallas_gpu", *arrays, *[None] * 4, **settings)
    assert named is operation.implementations["pallas_gpu"].function


def test_tiles_of_other_segments_are_not_visited():
    """Of 48 queries and 64 keys in tiles of 16: packed, padded, and in no order."""
    queries = np.repeat([[1, 2, 2], [3, 0, 3], [0, 0, 0]], 16, axis=1)
    keys = np.repeat([[1, 1, 2, 0], [1, 3, 0, 3], [1, 1, 1, 1]], 16, axis=1)
    seen = plan.tiles_seen(jnp.asarray(queries), jnp.asarray(keys), 16, 16, 48)
    assert seen[..., :2].tolist() == [
        [[0, 2], [2, 3], [2, 3]],
        [[1, 4], [0, 0], [1, 4]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    # In no order, the first ones in a row.
    assert seen[..., 2:].tolist() == [
        [[0, 2], [2, 3], [2, 3]],
        [[1, 2], [0, 0], [1, 2]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    any_segment = plan.tiles_seen(None, jnp.asarray(keys), 16, 16, 48)
    assert any_segment[:, 0].tolist() == [[0, 3, 0, 3], [0, 4, 0, 2], [0, 4, 0, 4]]


@pytest.mark.parametrize("by_query", [True, False])
def test_within_clear_tiles_nothing_is_hidden(by_query):
    """And without the tiles that are visited all is, of segments of any length."""
    rng = np.random.default_rng(0)
    queries, keys = (
        np.sort(rng.integers(0, 4, (40, length)), axis=1)[:, ::-1] for length in (37, 53)
    )
    visible = np.broadcast_to((keys != 0)[:, None], (40, 37, 53))
    if by_query:
        visible = visible & (queries[:, :, None] == keys[:, None])
    own = jnp.asarray(queries) if by_query else None
    seen = np.asarray(plan.tiles_seen(own, jnp.asarray(keys), 8, 4, 37))
    assert seen.shape == (40, 5, 4)
    for row, tile in np.ndindex(*seen.shape[:2]):
        first, end, clear, clear_end = 4 * seen[row, tile]
        pairs = visible[row, 8 * tile : 8 * tile + 8]
        assert not np.delete(pairs, np.s_[first:end], axis=1).any()
        assert pairs[:, clear:clear_end].all()
        assert clear_end <= 53  # All of them are there.
    assert (seen[..., 3] - seen[..., 2]).sum() > 100


@pytest.mark.parametrize("offset", [-7, 7])
def test_a_log_sum_has_its_gradient(offset):
    """Shards of keys are put together by them; where keys lie is known when the kernel runs."""
    query, key, value = inputs(37, 50)
    bias = normal((2, 11), 3)
    tiles = plan.full_tiles(query, looks_up=True)
    causal = plan.Plan(tiles, ahead=0, reach=5, has_bias=True, offset=None, interpret=True)
    distance = np.arange(50)[None] + offset - np.arange(37)[:, None]
    some = (distance <= 0).any(axis=1)
    assert some.sum() == 37 - max(offset, 0)

    def total(attended, log_sum):
        log_sum = jnp.where(some[None, None], log_sum, 0.0)
        return jnp.sum(jnp.sin(attended)) + jnp.sum(jnp.cos(log_sum)), (attended, log_sum)

    def fused(query, key, value, bias):
        return total(
            *flash_attention(causal, query, key, value, bias, (None, None), None, jnp.int32(offset))
        )

    def dense(query, key, value, bias):
        scores = jnp.einsum("bqhk,bjhk->bhqj", query, key, precision="highest")
        scores += bias[:, np.clip(distance, -5, 5) + 5][None]
        scores = jnp.where((distance <= 0)[None, None], scores, -1e30)
        weights = jax.nn.softmax(scores) * some[None, None, :, None]
        attended = jnp.einsum("bhqj,bjhk->bqhk", weights, value, precision="highest")
        return total(attended, jax.nn.logsumexp(scores, axis=-1))

    results, expected = (
        jax.jit(jax.value_and_grad(function, (0, 1, 2, 3), has_aux=True))(query, key, value, bias)
        for function in (fused, dense)
    )
    for result, reference in zip(jax.tree.leaves(results), jax.tree.leaves(expected)):
        np.testing.assert_allclose(result, reference, rtol=1e-6, atol=2e-5)
