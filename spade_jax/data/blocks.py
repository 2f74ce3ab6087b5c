"""Language modelling as seqio Tasks, one for each source, and the Mixture over them."""

import functools

import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import SourceConfig, TextBlocksConfig
from spade_jax.data.denoising import concatenate, tokenize
from spade_jax.data.digests import digest
from spade_jax.data.mixtures import mixture_of, registered
from spade_jax.data.sources import DocumentSource
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary


def blocks_mixture(config: TextBlocksConfig) -> seqio.Mixture:
    """Registers, or finds, the Mixture of every source, by weight."""
    tasks = [_task(source, config, salt) for salt, source in enumerate(config.sources)]
    whole = sum(source.weight for source in config.sources)
    return mixture_of("blocks", tasks, [source.weight / whole for source in config.sources])


def _task(source: SourceConfig, config: TextBlocksConfig, salt: int) -> seqio.Task:
    """Registers, or finds, the Task that cuts the text of a source into blocks."""
    vocabulary = load_vocabulary(config)
    cut = across_documents if config.across_documents else within_documents
    feature = seqio.Feature(vocabulary.seqio, add_eos=False)
    return registered(
        "blocks_"
        + digest(
            source,
            salt,
            vocabulary.digest,
            config.vocabulary,
            config.input_length,
            config.across_documents,
            config.document_shuffle_buffer,
            config.shuffle_buffer,
        ),
        source=DocumentSource(source, config.document_shuffle_buffer, salt),
        preprocessors=[
            functools.partial(_ended, vocabulary=vocabulary),
            functools.partial(cut, length=config.input_length, start=vocabulary.eos_id),
        ],
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=config.shuffle_buffer,
    )


def across_documents(dataset: tf.data.Dataset, length: int, start: int) -> tf.data.Dataset:
    """Joins documents end to end and cuts them into blocks.

    Args:
      dataset: examples with int32 [any] `targets`, the tokens of a document with its end.
      start: the token before the first one.

    Returns:
      Examples with int32 [length] `targets`, of which the last may hold less, and `inputs`: for
      each of them the token before.
    """

    def behind(before: tf.Tensor, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict]:
        targets = example["targets"]
        inputs = tf.concat([before[None], targets[:-1]], axis=0)
        return targets[-1], {"inputs": inputs, "targets": targets}

    return concatenate(dataset, length).scan(tf.constant(start, tf.int32), behind)


def within_documents(dataset: tf.data.Dataset, length: int, start: int) -> tf.data.Dataset:
    """Cuts each document into blocks of its own; as of `across_documents`, but that the last block
    of each is filled up with 0."""

    def cut(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        targets = example["targets"]
        inputs = tf.concat([[start], targets[:-1]], axis=0)
        beyond = -tf.size(targets) % length

        def blocks(tokens: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.pad(tokens, [[0, beyond]]), [-1, length])

        return {"inputs": blocks(inputs), "targets": blocks(targets)}

    return dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def padded(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Blocks, filled up, under the names of `objectives.causal_lm_batch`; all targets count."""

    def fill(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        def full(tokens: tf.Tensor) -> tf.Tensor:
            tokens = tf.pad(tf.cast(tokens, tf.int32), [[0, length - tf.size(tokens)]])
            return tf.ensure_shape(tokens, [length])

        inputs, targets = full(example["inputs"]), full(example["targets"])
        return {
            "decoder_input_tokens": inputs,
            "decoder_target_tokens": targets,
            "decoder_loss_weights": tf.cast(targets != 0, tf.int32),
        }

    return dataset.map(fill, num_parallel_calls=tf.data.AUTOTUNE)


def _ended(dataset: tf.data.Dataset, vocabulary: Vocabulary) -> tf.data.Dataset:
    """From examples with bytes [] `text` to int32 [any] `targets` that end in EOS."""
    end = tf.constant([vocabulary.eos_id], tf.int32)

    def append(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"targets": tf.concat([tf.cast(example["targets"], tf.int32), end], axis=0)}

    return tokenize(dataset, vocabulary).map(append, num_parallel_calls=tf.data.AUTOTUNE)
