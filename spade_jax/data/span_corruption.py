"""T5's span corruption (Raffel et al. 2020, sections 3.1.4 and 3.3.4) as tf.data transforms."""

import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DenoiserConfig


def concatenate(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Joins documents end to end and cuts them into segments of `length` tokens.

    Args:
      dataset: examples with int32 [any] `targets`, the tokens of a document.

    Returns:
      Examples with int32 [length] `targets`; the last, if there is one, holds what is left.
    """
    return dataset.map(lambda example: {"targets": example["targets"]}).rebatch(length)


def random_partition(total: tf.Tensor, parts: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cuts `total` items into `parts` runs of at least one, each way with equal probability.

    Args:
      seed: int [2], of stateless randomness.

    Returns:
      int32 [parts], lengths that add up to `total`.
    """
    borders = tf.random.experimental.stateless_shuffle(tf.range(1, total), seed)[: parts - 1]
    borders = tf.concat([[0], tf.sort(borders), [total]], axis=0)
    return borders[1:] - borders[:-1]


def noise_mask(length: tf.Tensor, denoiser: DenoiserConfig, seed: tf.Tensor) -> tf.Tensor:
    """Which of `length` tokens are masked: bool [length].

    Kept and masked runs alternate, kept first and masked last; each kind is a random partition
    of as many tokens as `DenoiserConfig.count_noise` says. Of one token alone, none is masked.
    """
    kept_seed, noise_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    tokens = tf.maximum(length, 2)
    share = tf.cast(tokens, tf.float64) * denoiser.noise_density
    noise = tf.clip_by_value(tf.cast(tf.round(share), tf.int32), 1, tokens - 1)
    spans = tf.round(tf.cast(noise, tf.float64) / denoiser.mean_span_length)
    spans = tf.clip_by_value(tf.cast(spans, tf.int32), 1, tokens - noise)
    kept_runs = random_partition(tokens - noise, spans, kept_seed)
    noise_runs = random_partition(noise, spans, noise_seed)
    runs = tf.reshape(tf.stack([kept_runs, noise_runs], axis=1), [-1])
    masked = tf.repeat(tf.tile([False, True], [spans]), runs)
    return masked[:length]


def replace_spans(tokens: tf.Tensor, mask: tf.Tensor, first_sentinel: int) -> tf.Tensor:
    """Puts one sentinel in place of each run of masked tokens, counting down from the first."""
    starts = mask & ~tf.concat([[False], mask[:-1]], axis=0)
    sentinels = first_sentinel + 1 - tf.cumsum(tf.cast(starts, tokens.dtype))
    return tf.boolean_mask(tf.where(starts, sentinels, tokens), starts | ~mask)


def span_corruption(dataset: tf.data.Dataset, denoiser: DenoiserConfig, vocabulary_size: int):
    """Turns segments into pairs: inputs without the masked spans, targets with nothing else.

    Args:
      dataset: examples with int32 [any] `targets`.

    Returns:
      Examples with int32 `inputs` and `targets`, both without EOS. Sentinels stand for the masked
      spans in `inputs` and announce them, in the same order, in `targets`.
    """

    @seqio.map_over_dataset(num_seeds=1)
    def corrupt(example, seed):
        tokens = example["targets"]
        masked = noise_mask(tf.size(tokens), denoiser, seed)
        return {
            "inputs": replace_spans(tokens, masked, vocabulary_size - 1),
            "targets": replace_spans(tokens, ~masked, vocabulary_size - 1),
        }

    return corrupt(dataset)
