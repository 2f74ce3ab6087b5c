"""What of full attention XLA's implementation alone has: spans of queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from full_inputs import inputs

from spade_jax.ops.attention import full_xla
from spade_jax.ops.attention.full import full_attention


@pytest.mark.parametrize("span", [1, 3, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_spans_of_queries_change_nothing(monkeypatch, span, causal):
    """Output and every gradient, with segments, a bias and dropout."""
    weight = normal((2, 8, 2, 4), 5)
    segment_ids = np.array([[1, 1, 2, 0, 2, 1, 1, 0], [1, 2, 2, 3, 3, 0, 3, 3]], np.int32)

    def results():
        def total(query, key, value, bias):
            output = full_attention(
                query,
                key,
                value,
                causal=causal,
                query_segment_ids=segment_ids,
                key_segment_ids=segment_ids,
                bias=bias,
                dropout_rate=0.3,
                dropout_key=jax.random.key(0),
            )
            return jnp.sum(output * weight), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)(
            *inputs(8, 8, size=4), normal((2, 15), 9)
        )
        return output, *gradients

    expected = results()
    monkeypatch.setattr(full_xla, "_SPAN", span)
    for result, reference in zip(results(), expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-6)


def test_gradients_of_keys_in_bfloat16_are_summed_over_spans_in_float32(monkeypatch):
    """Each of 512 queries adds as much to the gradient of a value."""
    monkeypatch.setattr(full_xla, "_SPAN", 1)
    zeros = jnp.zeros((1, 512, 1, 1), jnp.bfloat16)

    def total(value):
        return jnp.sum(full_attention(zeros, zeros, value, causal=False).astype(jnp.float32))

    gradient = jax.jit(jax.grad(total))(zeros)
    np.testing.assert_array_equal(np.asarray(gradient, np.float32), 1.0)
