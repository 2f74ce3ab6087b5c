"""Arrays for full attention."""

import numpy as np

# Of a head: what all hardware takes.
SIZE = 16
# More than two tiles of the least size, and no whole number of them.
QUERIES, KEYS = 37, 50


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs(queries, keys, batch=2, heads=2, size=SIZE):
    """Queries, keys and values; the queries are scaled."""
    lengths = (queries, keys, keys)
    query, key, value = (normal((batch, n, heads, size), (n, i)) for i, n in enumerate(lengths))
    return query * size**-0.5, key, value


def segment_patterns(length, seed=0):
    """Whole, padded right, padded left, packed, not contiguous, and nothing at all: [6, length]."""
    position = np.arange(length)
    packed = 1 + (position >= length // 3) + (position >= length // 2)
    packed[length - length // 6 :] = 0
    return np.stack(
        [
            np.ones(length, int),
            position < (length + 1) // 2,
            position >= length // 3,
            packed,
            np.random.default_rng(seed).integers(0, 3, length),
            np.zeros(length, int),
        ]
    ).astype(np.int32)
