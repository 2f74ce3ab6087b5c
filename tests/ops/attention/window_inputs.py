"""Arrays for window attention, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from arrays import normal


def inputs(batch, length, heads=2, size=16, seed=0):
    """Queries, keys and values; the queries are scaled."""
    shape = (batch, length, heads, size)
    query, key, value = (normal(shape, seed=(seed, i)) for i in range(3))
    return query * np.float32(size**-0.5), key, value


def attend(window_attention, query, key, value, **settings):
    """Compiled as one program."""
    return jax.jit(lambda *arrays: window_attention(*arrays, **settings))(query, key, value)


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
