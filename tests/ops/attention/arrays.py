"""Arrays for all attentions."""

import numpy as np


def normal(shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


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
