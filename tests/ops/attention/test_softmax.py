import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.attention.softmax import softmax_attention


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def attend(query, key, value, visible=None, bias=None):
    return softmax_attention(query, key, value, visible=visible, bias=bias)[0]


def definition(query, key, value, visible, bias):
    scores = jnp.einsum("...qk,...jk->...qj", query, key, precision="highest") + bias
    probabilities = jnp.where(visible, jax.nn.softmax(jnp.where(visible, scores, -1e30)), 0.0)
    return jnp.einsum("...qj,...jk->...qk", probabilities, value, precision="highest")


def test_output_and_gradients_follow_the_definition():
    """With rows that see all keys, some, one and none."""
    arguments = (normal((2, 5, 3)), normal((2, 7, 3), 1), normal((2, 7, 4), 2))
    bias, weight = normal((1, 5, 7), 3), normal((2, 5, 4), 4)
    visible = np.random.default_rng(5).random((2, 5, 7)) < 0.6
    visible[:, 0], visible[:, 1], visible[:, 2] = True, np.arange(7) == 3, False

    def gradients(function):
        def total(query, key, value, bias):
            output = function(query, key, value, visible, bias)
            return jnp.sum(output * weight), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)(
            *arguments, bias
        )
        return output, *gradients

    for result, reference in zip(gradients(attend), gradients(definition)):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(attend(*arguments, visible, bias)[:, 2], 0.0)


def test_large_scores_do_not_overflow():
    query, key = np.float32([[[1e4]]]), np.float32([[[1e4], [1e4], [-1e4]]])
    output = attend(query, key, np.float32([[[1.0], [2.0], [30.0]]]))
    np.testing.assert_array_equal(output, [[[1.5]]])


def test_scores_are_float32_whatever_the_inputs():
    """256 and 257 are the same number in bfloat16."""
    query, key = jnp.bfloat16([[[16, 1]]]), jnp.bfloat16([[[16, 0], [16, 1]]])
    output = attend(query, key, jnp.bfloat16([[[0], [1]]]))
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(output[0, 0, 0]), 1 / (1 + np.exp(-1)), atol=2e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_matmuls_are_in_the_inputs_dtype_also_in_the_backward_pass(dtype):
    def total(query, key, value):
        return jnp.sum(attend(query, key, value).astype(jnp.float32))

    array = jax.ShapeDtypeStruct((2, 8, 4), dtype)
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(array, array, array).as_text()
    matmuls = re.findall(r"dot_general.*: \(tensor<\w*x(\w+)>, tensor<\w*x(\w+)>\)", program)
    assert len(matmuls) == 6 - 1  # The output itself is not needed.
    assert set(matmuls) == {({"bfloat16": "bf16", "float32": "f32"}[dtype],) * 2}
    assert ("HIGHEST" in program) == (dtype == "float32")
    assert ("DEFAULT" in program) == (dtype == "bfloat16")


def test_attention_to_two_sets_of_keys_goes_together_by_their_sums():
    """Output and gradients, of rows that see keys of both sets, of one, and none."""
    arguments = (normal((2, 5, 3)), normal((2, 8, 3), 1), normal((2, 8, 4), 2))
    visible = np.random.default_rng(5).random((2, 5, 8)) < 0.6
    visible[:, 0], visible[:, 1], visible[:, 2] = False, np.arange(8) > 4, np.arange(8) < 5
    weight = normal((2, 5, 4), 4)

    def together(query, key, value):
        parts = [
            softmax_attention(
                query, key[:, keys], value[:, keys], visible=visible[:, :, keys], bias=None
            )
            for keys in (slice(5), slice(5, 8))
        ]
        attended, log_sums = (jnp.stack(results) for results in zip(*parts))
        weights = jax.nn.softmax(log_sums, axis=0)
        return jnp.sum(attended * weights[..., None], axis=0)

    def whole(query, key, value):
        return attend(query, key, value, visible)

    def gradients(function):
        def total(*arguments):
            output = function(*arguments)
            return jnp.sum(output * weight), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*arguments)
        return output, *gradients

    for result, reference in zip(gradients(together), gradients(whole)):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-6)
    _, log_sum = softmax_attention(*arguments, visible=visible, bias=None)
    scores = jnp.einsum("bqk,bjk->bqj", *arguments[:2], precision="highest")
    expected = jax.nn.logsumexp(jnp.where(visible, scores, -jnp.inf), axis=-1)
    np.testing.assert_allclose(log_sum[:, 1:], expected[:, 1:], rtol=1e-6)
    np.testing.assert_array_equal(log_sum[:, 0], np.finfo(np.float32).min)
