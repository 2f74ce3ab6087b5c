"""T5's span corruption of one segment in numpy: `spade_jax.data.span_corruption` at random access.

The two draw from the same distribution, but not the same numbers.
"""

import numpy as np

from spade_jax.data.config import DenoiserConfig


def span_corruption(
    tokens: np.ndarray, denoiser: DenoiserConfig, vocabulary_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A segment without its masked spans, and the spans alone.

    Args:
      tokens: int32 [any].

    Returns:
      int32 inputs and targets, both without EOS. Sentinels stand for the masked spans in inputs
      and announce them, in the same order, in targets.
    """
    mask = noise_mask(len(tokens), denoiser, rng)
    first = vocabulary_size - 1
    return replace_spans(tokens, mask, first), replace_spans(tokens, ~mask, first)


def random_partition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts `total` items into `parts` runs of at least one, each way with equal probability."""
    borders = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(borders, prepend=0, append=total)


def noise_mask(length: int, denoiser: DenoiserConfig, rng: np.random.Generator) -> np.ndarray:
    """Which of `length` tokens are masked: bool [length]. Of one token alone, none is."""
    tokens = max(length, 2)
    noise, spans = denoiser.count_noise(tokens)
    kept_runs = random_partition(tokens - noise, spans, rng)
    noise_runs = random_partition(noise, spans, rng)
    runs = np.stack([kept_runs, noise_runs], axis=1).ravel()
    return np.repeat(np.tile([False, True], spans), runs)[:length]


def replace_spans(tokens: np.ndarray, mask: np.ndarray, first_sentinel: int) -> np.ndarray:
    """Puts one sentinel in place of each run of masked tokens, counting down from the first."""
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    sentinels = first_sentinel + 1 - np.cumsum(starts, dtype=tokens.dtype)
    return np.where(starts, sentinels, tokens)[starts | ~mask]
