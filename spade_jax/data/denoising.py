"""Pre-training as seqio Tasks, one for each source and denoiser, and the Mixture over them."""

import types

import numpy as np
import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataConfig, DenoiserConfig, SourceConfig
from spade_jax.data.digests import digest
from spade_jax.data.mixtures import mixture_of, registered
from spade_jax.data.sources import DocumentSource
from spade_jax.data.span_corruption import count_tokens, span_corruption
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary

# TensorFlow's functions by numpy's names, as span corruption calls them.
_TF = types.SimpleNamespace(
    compress=lambda mask, array: tf.boolean_mask(array, mask),
    concatenate=lambda arrays: tf.concat(arrays, axis=0),
    cumsum=lambda array, dtype: tf.cumsum(tf.cast(array, dtype)),
    ravel=lambda array: tf.reshape(array, [-1]),
    repeat=tf.repeat,
    size=tf.size,
    sort=tf.sort,
    stack=tf.stack,
    tile=lambda array, times: tf.tile(array, [times]),
    where=tf.where,
)


def denoising_task(
    source: SourceConfig, denoiser: DenoiserConfig, config: DataConfig, salt: int = 0
) -> seqio.Task:
    """Registers, or finds, the Task that corrupts spans of one source in one way.

    Args:
      salt: tasks of the same source but other salts read it in other orders.
    """
    vocabulary = load_vocabulary(config)
    name = "denoise_" + digest(
        source,
        denoiser,
        salt,
        vocabulary.digest,
        config.vocabulary,
        config.input_length,
        config.document_shuffle_buffer,
        config.shuffle_buffer,
    )
    feature = seqio.Feature(vocabulary.seqio, add_eos=True)
    return registered(
        name,
        source=DocumentSource(source, config.document_shuffle_buffer, salt),
        preprocessors=denoising_preprocessors(denoiser, config.input_length, vocabulary),
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=config.shuffle_buffer,
    )


def tokenize(dataset: tf.data.Dataset, vocabulary: Vocabulary) -> tf.data.Dataset:
    """From examples with bytes [] `text` to those with int32 [any] `targets`, without EOS."""
    return dataset.map(
        lambda example: {"targets": vocabulary.seqio.encode_tf(example["text"])},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def denoising_preprocessors(
    denoiser: DenoiserConfig, input_length: int, vocabulary: Vocabulary
) -> list:
    """From examples with bytes [] `text` to int32 `inputs` and `targets` that end in EOS."""

    def encode(dataset):
        return tokenize(dataset, vocabulary)

    length = denoiser.segment_length(input_length)

    def cut(dataset):
        return concatenate(dataset, length)

    def corrupt(dataset):
        return corrupt_spans(dataset, denoiser, length, vocabulary.size)

    return [encode, cut, corrupt, seqio.preprocessors.append_eos]


def concatenate(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Joins documents end to end and cuts them into segments of `length` tokens.

    Args:
      dataset: examples with int32 [any] `targets`, the tokens of a document.

    Returns:
      Examples with int32 [length] `targets`; the last, if there is one, holds what is left.
    """
    return dataset.map(lambda example: {"targets": example["targets"]}).rebatch(length)


def corrupt_spans(
    dataset: tf.data.Dataset, denoiser: DenoiserConfig, length: int, vocabulary_size: int
) -> tf.data.Dataset:
    """`span_corruption` of every segment, with random numbers of seqio's seed and TensorFlow.

    Args:
      dataset: examples with int32 [any] `targets`.
      length: the most tokens of a segment.

    Returns:
      Examples with int32 `inputs` and `targets`, both without EOS.
    """
    counts = np.array([count_tokens(n, denoiser) for n in range(length + 1)], np.int32)

    @seqio.map_over_dataset(num_seeds=1)
    def corrupt(example: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = iter(tf.unstack(tf.random.experimental.stateless_split(seed, 2)))

        def choose(count: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(count), next(seeds))
            return shuffled[:chosen]

        tokens = example["targets"]
        of_these = tuple(tf.unstack(tf.gather(counts, tf.size(tokens))))
        inputs, targets = span_corruption(tokens, of_these, vocabulary_size, choose, _TF)
        return {"inputs": inputs, "targets": targets}

    return corrupt(dataset)


def denoising_mixture(config: DataConfig) -> seqio.Mixture:
    """Registers, or finds, the Mixture of every source and every denoiser, by weight.

    The share of a pair is the product of its weights, each divided by the sum of its kind.
    """
    pairs = [(source, denoiser) for source in config.sources for denoiser in config.denoisers]
    tasks = [denoising_task(s, d, config, salt) for salt, (s, d) in enumerate(pairs)]
    rates = [
        s.weight
        / sum(source.weight for source in config.sources)
        * d.weight
        / sum(denoiser.weight for denoiser in config.denoisers)
        for s, d in pairs
    ]
    return mixture_of("denoise", tasks, rates)
