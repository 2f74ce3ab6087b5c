"""What cuDNN is asked for, and what it refuses; its numbers need a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_full import dense_full_attention
from full_inputs import inputs

from spade_jax import partition
from spade_jax.ops import dispatch
from spade_jax.ops.attention import full, full_cudnn
from spade_jax.ops.dispatch import Unsupported


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(partition, "platform", lambda: "gpu")


def arrays(dtype="bfloat16", **shape):
    return [jnp.asarray(array, dtype) for array in inputs(5, 7, **shape)]


def test_what_cudnn_cannot_is_refused_by_name(on_gpu):
    segment_ids, key = np.ones((2, 7), np.int32), jax.random.key(0)
    for attempt, settings, message in (
        (arrays(), dict(key_segment_ids=segment_ids), "has no segments; xla, pallas_gpu can"),
        (arrays(), dict(dropout_rate=0.1, dropout_key=key), "has no dropout; xla, pallas_gpu can"),
        (arrays("float32"), {}, "takes bfloat16, float16, and this is float32"),
        (arrays(size=20), {}, "takes heads of a multiple of 8 up to 128, and these have 20; xla"),
        (arrays(size=136), {}, "takes heads of a multiple of 8 up to 128, and these have 136"),
    ):
        with pytest.raises(Unsupported, match=f"implementation 'cudnn' {message}"):
            full.full_attention(*attempt, causal=False, implementation="cudnn", **settings)
    query, *_ = arrays()
    bias = np.zeros((2, 3), np.float32)
    with pytest.raises(Unsupported, match="'cudnn' has no bias; xla, pallas_gpu can"):
        full.full_attention(query, query, query, causal=True, bias=bias, implementation="cudnn")


def test_elsewhere_it_is_refused(monkeypatch):
    with pytest.raises(Unsupported, match="'cudnn' runs on a gpu, and this is for a cpu"):
        full.full_attention(*arrays(), causal=False, implementation="cudnn")
    with (
        dispatch.interpreted(),
        pytest.raises(Unsupported, match="runs on a gpu alone, and cannot be interpreted"),
    ):
        full.full_attention(*arrays(), causal=False, implementation="cudnn")


def test_shards_of_keys_are_refused(on_gpu):
    mesh = jax.sharding.AbstractMesh((1, 1, 1, 2), partition.MESH_AXES)
    even = [*arrays()[:1], *(jnp.zeros((2, 8, 2, 16), jnp.bfloat16) for _ in range(2))]
    with jax.sharding.use_abstract_mesh(mesh):
        assert full_cudnn.refuses(*even, *[None] * 4).startswith("gives no log-sums")
        assert full_cudnn.refuses(*arrays(), *[None] * 4) is None  # Of 7 keys, which are not cut.


def test_a_gpu_s_default_where_it_takes_the_arguments(on_gpu):
    operation, settings = full.FULL_ATTENTION, dict(causal=False, dropout_rate=0.0)
    chosen = operation.choose(None, *arrays(), *[None] * 4, **settings)
    assert chosen is operation.implementations["cudnn"].function
    segment_ids = np.ones((2, 7), np.int32)
    chosen = operation.choose(None, *arrays(), None, segment_ids, None, None, **settings)
    assert chosen is operation.implementations["pallas_gpu"].function


@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(5, 7, False), (6, 8, False), (7, 7, True)]
)
def test_odd_lengths_are_filled_up_and_hidden(on_gpu, monkeypatch, queries, keys, causal):
    """By XLA in cuDNN's place: lengths are even, and what fills them up is seen by nobody."""
    asked = jax.nn.dot_product_attention

    def instead(query, key, value, *, implementation, **settings):
        assert implementation == "cudnn"
        assert query.shape[1] % 2 == key.shape[1] % 2 == value.shape[1] % 2 == 0
        return asked(query, key, value, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    narrow = [jnp.asarray(array, jnp.bfloat16) for array in inputs(queries, keys)]

    wide = [array.astype(jnp.float32) for array in narrow]

    def results(attention, arrays, **settings):
        def total(*arrays):
            output = attention(*arrays, causal=causal, **settings)
            return jnp.sum(jnp.sin(output.astype(jnp.float32))), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*arrays)
        return output, *gradients

    found = results(full.full_attention, narrow, implementation="cudnn")
    expected = results(dense_full_attention, wide)
    for result, reference in zip(found, expected):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(
            np.asarray(result, np.float32) / scale, reference / scale, rtol=0, atol=2e-2
        )
