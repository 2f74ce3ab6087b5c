"""T5's span corruption (Raffel et al. 2020, sections 3.1.4 and 3.3.4) of one segment.

Text that is read directly is corrupted within tf.data, in TensorFlow's threads, and a segment of a
cache in numpy. This code does both: `xp` is numpy, or has TensorFlow's functions by numpy's names,
and arrays are of its kind. Only the random numbers are drawn elsewhere.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from spade_jax.data.config import DenoiserConfig

Array = Any
# (count, chosen) -> `chosen` different ones of 0, 1, …, count - 1, each set equally probable.
Choose = Callable[[Any, Any], Array]

_KEPT_MASKED = np.array([False, True])


def count_tokens(length: int, denoiser: DenoiserConfig) -> tuple[int, int, int]:
    """How many of `length` tokens are kept and masked, and in how many spans; of one as of two."""
    tokens = max(length, 2)
    masked, spans = denoiser.count_noise(tokens)
    return tokens - masked, masked, spans


def span_corruption(
    tokens: Array, counts: tuple[Any, Any, Any], vocabulary_size: int, choose: Choose, xp: Any
) -> tuple[Array, Array]:
    """A segment without its masked spans, and the spans alone.

    Args:
      tokens: int32 [l].
      counts: `count_tokens` of l.

    Returns:
      int32 inputs and targets, both without EOS. Sentinels stand for the masked spans in inputs
      and announce them, in the same order, in targets.
    """
    mask = noise_mask(counts, choose, xp)[: xp.size(tokens)]  # Of one token alone, none is masked.
    first = vocabulary_size - 1
    return replace_spans(tokens, mask, first, xp), replace_spans(tokens, ~mask, first, xp)


def corrupted(
    tokens: np.ndarray, denoiser: DenoiserConfig, vocabulary_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`span_corruption` of int32 [l] tokens in numpy."""
    return span_corruption(
        tokens,
        count_tokens(len(tokens), denoiser),
        vocabulary_size,
        lambda count, chosen: rng.choice(count, chosen, replace=False),
        np,
    )


def noise_mask(counts: tuple[Any, Any, Any], choose: Choose, xp: Any) -> Array:
    """Which tokens are masked: bool [kept + masked].

    Kept and masked runs alternate, kept first and masked last; each kind is a random partition,
    and that of kept tokens is drawn first.
    """
    kept, masked, spans = counts
    kept_runs = random_partition(kept, spans, choose, xp)
    masked_runs = random_partition(masked, spans, choose, xp)
    runs = xp.ravel(xp.stack([kept_runs, masked_runs], axis=1))
    return xp.repeat(xp.tile(_KEPT_MASKED, spans), runs)


def random_partition(total: Any, parts: Any, choose: Choose, xp: Any) -> Array:
    """Cuts `total` items into `parts` runs of at least one, each way with equal probability.

    Returns:
      int [parts], lengths that add up to `total`.
    """
    borders = xp.sort(choose(total - 1, parts - 1)) + 1
    borders = xp.concatenate([[0], borders, [total]])
    return borders[1:] - borders[:-1]


def replace_spans(tokens: Array, mask: Array, first_sentinel: int, xp: Any) -> Array:
    """Puts one sentinel in place of each run of masked tokens, counting down from the first."""
    starts = mask & ~xp.concatenate([[False], mask[:-1]])
    sentinels = first_sentinel + 1 - xp.cumsum(starts, dtype=tokens.dtype)
    return xp.compress(starts | ~mask, xp.where(starts, sentinels, tokens))
