"""Arrays for window attention, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def inputs(batch, length, heads=2, size=16, seed=0):
    """Queries, keys and values; the queries are scaled."""
    shape = (batch, length, heads, size)
    query, key, value = (normal(shape, seed=(seed, i)) for i in range(3))
    return query * np.float32(size**-0.5), key, value


def attend(window_attention, query, key, value, **settings):
    """Compiled as one program."""
    return jax.jit(lambda *arrays: window_attention(*arrays, **settings))(query, key, value)


def segment_patterns(length, seed=0):
    """Whole, padded right, padded left, packed, not contiguous, and nothing at all: [6, l]."""
    position = np.arange(length)
    random = np.random.default_rng(seed).integers(0, 3, length)
    packed = 1 + (position >= length // 3) + (position >= length // 2)
    packed[length - length // 6 :] = 0
    return np.stack(
        [
            np.ones(length, int),
            position < (length + 1) // 2,
            position >= length // 3,
            packed,
            random,
            np.zeros(length, int),
        ]
    ).astype(np.int32)


def output_and_gradients(attention, arguments, **settings):
    """The output, and the gradients of its product with a fixed array by every argument."""
    weight = normal(arguments[0].shape, seed=99)

    def total(query, key, value, bias):
        output = attention(query, key, value, bias=bias, **settings)
        return jnp.sum(output * weight), output

    (_, output), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True))(
        *arguments
    )
    return output, *gradients
