"""What of the TPU's attention kernels the operations' suites do not reach: several blocks, spans
and pieces, heads of other sizes, log-sums, rematerialisation; and that compilers take them."""

import contextlib
from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from dense_full import dense_full_attention
from dense_window import dense_window_attention

from spade_jax import partition
from spade_jax.ops import dispatch
from spade_jax.ops.attention.full import FULL_ATTENTION, full_attention
from spade_jax.ops.attention.pallas_tpu import full as full_tpu
from spade_jax.ops.attention.pallas_tpu import window as window_tpu
from spade_jax.ops.attention.softmax import ATTENDED, softmax_attention, visible_keys
from spade_jax.ops.attention.window import WINDOW_ATTENTION, window_attention
from spade_jax.ops.dispatch import Unsupported


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def segments(rows, length):
    """Packed in one row, padded in another."""
    segment_ids = np.ones((rows, length), np.int32)
    segment_ids[0, length // 3 :], segment_ids[0, length // 2 :] = 2, 5
    segment_ids[0, length // 2 : length // 2 + 7] = 0
    segment_ids[-1, length - length // 5 :] = 0
    return segment_ids


def results(attention, arguments, weight, **settings):
    """The output, and the gradients of its product with a weight by every argument."""

    def total(*arguments):
        query, key, value, *bias = arguments
        output = attention(query, key, value, bias=bias[0] if bias else None, **settings)
        return jnp.sum(output * weight), output

    places = tuple(range(len(arguments)))
    (_, output), gradients = jax.jit(jax.value_and_grad(total, places, has_aux=True))(*arguments)
    return output, *gradients


def assert_equal(found, expected, tolerance=3e-5):
    for array, reference in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(array / scale, reference / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("length", "span", "radius", "causal", "heads", "size"),
    [
        (600, 256, 127, False, 1, 64),  # Three spans of two blocks; half a group of heads.
        pytest.param(600, 256, 128, True, 1, 128, marks=pytest.mark.slow),
        # Two blocks of keys to either side.
        pytest.param(530, 256, 200, False, 1, 16, marks=pytest.mark.slow),
    ],
)
def test_windows_of_several_blocks(monkeypatch, length, span, radius, causal, heads, size):
    monkeypatch.setattr(window_tpu, "_SPAN", span)
    arguments = [normal((2, length, heads, size), i) * size**-0.25 for i in range(3)]
    arguments.append(normal((heads, 2 * radius + 1), 4))
    settings = dict(radius=radius, causal=causal, segment_ids=segments(2, length))
    weight = normal((2, length, heads, size), 5)
    with dispatch.interpreted():
        found = results(
            window_attention, arguments, weight, implementation="pallas_tpu", **settings
        )
    assert_equal(found, results(dense_window_attention, arguments, weight, **settings))


@pytest.mark.parametrize(
    ("queries", "keys", "piece", "causal", "heads", "size"),
    [
        # Blocks, of which some see one chunk of two.
        pytest.param(390, 390, 4096, True, 3, 64, marks=pytest.mark.slow),
        (300, 300, 256, True, 1, 128),  # Pieces of queries and of keys.
        pytest.param(150, 600, 512, False, 2, 64, marks=pytest.mark.slow),
    ],
)
def test_blocks_and_pieces(monkeypatch, queries, keys, piece, causal, heads, size):
    monkeypatch.setattr(full_tpu, "_PIECE", 2 * piece)  # Of float32 half as many.
    shapes = ((2, queries, heads, size), *[(2, keys, heads, size)] * 2)
    arguments = [normal(shape, i) * size**-0.25 for i, shape in enumerate(shapes)]
    if causal:
        arguments.append(normal((heads, 2 * keys - 1), 4))
    settings = dict(
        causal=causal,
        query_segment_ids=segments(2, queries),
        key_segment_ids=segments(2, keys),
    )
    weight = normal(shapes[0], 5)
    with dispatch.interpreted():
        found = results(full_attention, arguments, weight, implementation="pallas_tpu", **settings)
    assert_equal(found, results(dense_full_attention, arguments, weight, **settings))


def test_log_sums_and_their_gradients():
    """As shards merge by them."""
    query, key, value = (normal((1, n, 2, 8), n) for n in (20, 30, 30))
    segment_ids = segments(1, 20), segments(1, 30)
    weight = normal((1, 20, 2), 5)

    def kernels(query, key):
        _, log_sum = full_tpu.attend(
            query,
            key,
            value,
            *segment_ids,
            None,
            None,
            causal=False,
            dropout_rate=0.0,
            first_key=0,
        )
        return jnp.sum(jnp.where(log_sum > -1e9, log_sum * weight, 0.0))

    def definition(query, key):
        arrays = (array.swapaxes(1, 2) for array in (query, key, value))
        visible = visible_keys(*map(jnp.asarray, segment_ids))
        log_sum = softmax_attention(*arrays, visible=visible, bias=None)[1].swapaxes(1, 2)
        return jnp.sum(jnp.where(log_sum > -1e9, log_sum * weight, 0.0))

    with dispatch.interpreted():
        found = jax.jit(jax.value_and_grad(kernels, (0, 1)))(query, key)
    expected = jax.value_and_grad(definition, (0, 1))(query, key)
    assert_equal(jax.tree.leaves(found), jax.tree.leaves(expected))


def kernels_in(jaxpr):
    """Names of the kernels of a program, each as often as it is called."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found.append(equation.params["name"])
            continue
        for inside in jax.extend.core.jaxprs_in_params(equation.params):
            found += kernels_in(inside)
    return found


@pytest.mark.parametrize("policy", ["attended", "nothing"])
def test_the_forward_kernels_do_not_run_again(policy):
    """In the backward pass of a layer that keeps what attention gives."""
    kept = jax.checkpoint_policies.save_only_these_names(ATTENDED)
    policy = kept if policy == "attended" else jax.checkpoint_policies.nothing_saveable
    x = normal((1, 20, 2, 8))

    def layer(x):
        x = window_attention(x, x, x, radius=3, causal=False, implementation="pallas_tpu")
        return full_attention(x, x, x, causal=True, implementation="pallas_tpu") * x

    with dispatch.interpreted():
        gradient = jax.value_and_grad(lambda x: jnp.sum(jax.checkpoint(layer, policy=policy)(x)))
        jaxpr = jax.make_jaxpr(gradient)(x).jaxpr
    jaxpr, _ = jax.interpreters.partial_eval.dce_jaxpr(jaxpr, [True, True])
    found = sorted(kernels_in(jaxpr))
    again = 1 if policy is kept else 2
    assert found.count("full_forward") == again
    assert found.count("window_forward") == again
    assert found.count("full_backward") == found.count("window_backward") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(dtype="float16"), "takes bfloat16, float32, and this is float16"),
        (dict(size=300), "takes heads of at most 256 features, and these have 300"),
        (dict(radius=2000), "takes a radius of at most 1024, and this is 2000"),
        (dict(interpret=False), "runs on a tpu, and this is for a cpu"),
    ],
)
def test_refusals(change, message):
    change = dict(dtype="float32", size=8, radius=3, interpret=True) | change
    x = jnp.zeros((1, 9, 1, change["size"]), change["dtype"])
    interpreted = dispatch.interpreted() if change["interpret"] else contextlib.nullcontext()
    with interpreted, pytest.raises(Unsupported, match=message):
        window_attention(
            x, x, x, radius=change["radius"], causal=False, implementation="pallas_tpu"
        )


def test_a_tpu_s_default_are_the_kernels_where_its_memory_suffices(monkeypatch):
    monkeypatch.setattr(partition, "platform", lambda: "tpu")
    arrays = [jnp.zeros((1, 9, 1, 8), jnp.bfloat16)] * 3
    for kind, best in (("TPU v5 lite", "pallas_tpu"), ("TPU v4", "xla")):
        monkeypatch.setattr(partition, "device_kind", lambda kind=kind: kind)
        for operation, settings in (
            (WINDOW_ATTENTION, dict(radius=3, causal=True)),
            (FULL_ATTENTION, dict(causal=True)),
        ):
            chosen = operation.choose(None, *arrays, *[None] * 4, dropout_rate=0.0, **settings)
            assert chosen is operation.implementations[best].function
    with pytest.raises(Unsupported, match="needs the vector memory of a TPU v5e or later"):
        full_attention(*arrays, causal=True, implementation="pallas_tpu")


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_compiler_takes_them(on_eight_devices, topology):
    pytest.importorskip("libtpu")
    script = Path(__file__).with_name("compile_tpu_kernels.py")
    found = on_eight_devices(script, topology)
    kernels = sorted(["window_forward", "window_backward", "full_forward", "full_backward"])
    for name, compiled in found.items():
        # Those that the platform takes unasked; each once.
        own = [kernel for kernel in kernels if kernel.startswith(name.split()[0])]
        assert compiled == own, name
