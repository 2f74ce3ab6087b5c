"""What a run learns: all of the program that depends on the kind of its data."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pretrain.classes import Classes, with_names
from pretrain.config import PretrainConfig
from pretrain.ending import Ending
from pretrain.text import BlocksOfText, MaskedText
from spade_jax.config import ClassifierConfig, TokenModelConfig, of_kind
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.config import TextBlocksConfig
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.runs.open import Run
from spade_jax.telemetry.samples import Sample
from spade_jax.training.loop import BatchIterator
from spade_jax.training.step import Trainer


class Learning(Protocol):
    """A kind of data, what is learned from it, and what there is to say at the end.

    Attributes:
      objective: an `objectives.base.Objective`.
      vocabulary_digest: equal for equal vocabularies.
      vocabulary_setting: the setting that names the vocabulary, and its value.
      sample_names: what a sample is, and what its input, target and prediction are.
    """

    objective: Any
    vocabulary_digest: str
    vocabulary_setting: tuple[str, str]
    sample_names: tuple[str, str, str, str]

    def describe(self) -> Iterable[str]:
        """What there is to say of the data before training, in sentences."""
        ...

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """For each setting what the data is read from, each with a digest of what it holds."""
        ...

    def train(self, batch_size: int, shard_index: int = 0, num_shards: int = 1) -> BatchIterator:
        """Training batches without end, of so many rows of this host."""
        ...

    def validation(
        self, batch_size: int, limit: int | None, shard_index: int = 0, num_shards: int = 1
    ) -> Iterable[dict[str, np.ndarray]]:
        """What is held out, at most so many batches, the same at every pass."""
        ...

    def baseline(self, held_out: Iterable[dict[str, np.ndarray]]) -> float:
        """The validation loss of guessing without a look at the input."""
        ...

    def sampler(self, trainer: Trainer) -> Callable[[Any], Sequence[Sample]]:
        """What gives, of parameters, what they make of the first examples that are held out."""
        ...

    def result(self, evaluation: Mapping[str, float], baseline: float) -> str:
        """What the model has learned, in a sentence."""
        ...

    def ending(
        self,
        trainer: Trainer,
        params: Callable[[], Any],
        evaluation: Mapping[str, float],
        baseline: float,
    ) -> Ending:
        """What the parameters are worth in the end.

        Args:
          params: reads them.
          evaluation: metrics of theirs.
          baseline: the validation loss of guessing.
        """
        ...


def with_data_settings(config: PretrainConfig, before: Run | None) -> PretrainConfig:
    """The configuration with the settings that it leaves to the data, `model.vocab_size` too.

    Args:
      before: the run that goes on or that this one begins with, which has them.

    Raises:
      DataError: the data cannot be read.
    """
    if isinstance(config.data, ClassificationDataConfig):
        config = dataclasses.replace(config, data=with_names(config.data, before))
    return with_vocabulary(config)


def with_vocabulary(config: PretrainConfig) -> PretrainConfig:
    """The configuration whose model has as many tokens as the data's vocabulary, if it does not
    say how many.

    Raises:
      DataError: the vocabulary cannot be read, which it is only then.
    """
    data, model = config.data, config.own_model
    if isinstance(data, ClassificationDataConfig) and data.tokens is not None:
        model = of_kind(model, ClassifierConfig).following(data.tokens)
    if isinstance(model, TokenModelConfig) and model.vocab_size is None:
        model = model.following(load_vocabulary(data).size)
    return dataclasses.replace(config, model=model)


def learning_of(config: PretrainConfig) -> Learning:
    """What a configuration's run learns.

    Raises:
      ConfigError: a vocabulary that does not fit the model.
      DataError: what there is to read first, such as a vocabulary, cannot be read.
    """
    if isinstance(config.data, ClassificationDataConfig):
        return Classes(config)
    return BlocksOfText(config) if isinstance(config.data, TextBlocksConfig) else MaskedText(config)
