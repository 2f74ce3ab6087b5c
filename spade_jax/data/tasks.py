"""seqio Tasks, one for each source and denoiser, and the Mixture over them.

Other tasks (fine-tuning, say) get modules of their own beside this one.
"""

import dataclasses
import hashlib
import json
from typing import Any

import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataConfig, DenoiserConfig, SourceConfig
from spade_jax.data.sources import DocumentSource
from spade_jax.data.span_corruption import concatenate, span_corruption
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary


def digest(*definition: Any) -> str:
    """A name for a definition made of dataclasses, numbers and strings: equal ones share it."""
    text = json.dumps(definition, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    feature = seqio.Feature(vocabulary.seqio, add_eos=True)
    return seqio.TaskRegistry.add(
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

    def cut(dataset):
        return concatenate(dataset, denoiser.segment_length(input_length))

    def corrupt(dataset):
        return span_corruption(dataset, denoiser, vocabulary.size)

    return [encode, cut, corrupt, seqio.preprocessors.append_eos]


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
    name = "denoise_mixture_" + digest([task.name for task in tasks], rates)
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    return seqio.MixtureRegistry.add(name, list(zip([task.name for task in tasks], rates)))
