"""Arrays for window attention."""

import jax
import numpy as np


def normal(shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def inputs(batch, length, heads=2, size=4, seed=0):
    return tuple(normal((batch, length, heads, size), seed=(seed, i)) for i in range(3))


def attend(window_attention, query, key, value, **settings):
    """Compiled as one program."""
    return jax.jit(lambda *arrays: window_attention(*arrays, **settings))(query, key, value)
