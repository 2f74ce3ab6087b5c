"""Learning from text: masked spans that are filled in, or blocks that are continued."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pretrain.config import PretrainConfig
from pretrain.ending import Ending, metrics_of
from pretrain.fill_in import passages
from pretrain.objectives import objective_of
from pretrain.write_on import continuations
from spade_jax.config import TokenModelConfig, of_kind
from spade_jax.data.config import DataConfig, TextBlocksConfig, TextConfig
from spade_jax.data.pipeline import digest_data, train_batches, validation_batches
from spade_jax.data.preview.text import look_at_text
from spade_jax.data.unigram import unigram_cross_entropy
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.telemetry.samples import Sample
from spade_jax.training.loop import BatchIterator
from spade_jax.training.step import Trainer

# Batches of training text whose unigram distribution is the baseline.
UNIGRAM_BATCHES = 50
# Of each set the documents, and bytes of text, that are looked at to say what it is like: so few
# that it costs little.
DESCRIBED = 200
DESCRIBED_BYTES = 2**20


class Text:
    """What both have in common; see `pretrain.learning.Learning`."""

    def __init__(self, config: PretrainConfig):
        assert isinstance(config.data, TextConfig)
        self._config, self._data = config, config.data
        self._model = of_kind(config.own_model, TokenModelConfig)
        self.vocabulary = load_vocabulary(self._data)
        self.vocabulary_digest = self.vocabulary.digest
        self.vocabulary_setting = ("data.vocabulary", self._data.vocabulary)
        self._model.require_tokens(self.vocabulary.size, "data.vocabulary")
        self.objective = objective_of(config, self.vocabulary.token_bytes)

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        return digest_data(self._data)

    def train(self, batch_size: int, shard_index: int = 0, num_shards: int = 1) -> BatchIterator:
        return train_batches(self._data, batch_size, shard_index=shard_index, num_shards=num_shards)

    def validation(
        self, batch_size: int, limit: int | None, shard_index: int = 0, num_shards: int = 1
    ) -> Iterable[dict[str, np.ndarray]]:
        return validation_batches(
            self._data, batch_size, shard_index=shard_index, num_shards=num_shards, limit=limit
        )

    def describe(self) -> Iterable[str]:
        if isinstance(self._data, DataConfig) and self._data.cache is not None:
            return  # Whose sources need not be there any more.
        for seen in look_at_text(self._data, DESCRIBED, DESCRIBED_BYTES):
            yield from seen.brief()

    def baseline(self, held_out: Iterable[dict[str, np.ndarray]]) -> float:
        """That of the unigram distribution of the training text."""
        train = self.train(self._config.train.batch_size)
        batches = (next(train) for _ in range(UNIGRAM_BATCHES))
        return unigram_cross_entropy(
            map(self._targets, batches), map(self._targets, held_out), self.vocabulary.size
        )

    def ending(
        self,
        trainer: Trainer,
        params: Callable[[], Any],
        evaluation: Mapping[str, float],
        baseline: float,
    ) -> Ending:
        guess = {"method": "unigrams of the training text", "metrics": {"loss": baseline}}
        return Ending({"validation": {"metrics": metrics_of(evaluation), "baseline": guess}})

    def _first_batch(self, trainer: Trainer) -> Mapping[str, np.ndarray]:
        return next(iter(self.validation(trainer.eval_batch_size, 1)))

    def _targets(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.objective.batch.of(batch).counted_targets


class MaskedText(Text):
    """Span corruption."""

    sample_names = ("passage", "masked", "truth", "model")

    def sampler(self, trainer: Trainer) -> Callable[[Any], Sequence[Sample]]:
        batch = self._first_batch(trainer)
        return passages(trainer, batch, self.vocabulary, self._config.samples)

    def result(self, evaluation: Mapping[str, float], baseline: float) -> str:
        loss = evaluation["loss"]
        return (
            f"validation loss {loss:.3f} nats per target token (perplexity {math.exp(loss):.2f}); "
            f"the unigram distribution of the training text has {baseline:.3f} "
            f"({math.exp(baseline):.2f})"
        )


class BlocksOfText(Text):
    """Language modelling."""

    sample_names = ("passage", "begins", "truth", "model")

    def sampler(self, trainer: Trainer) -> Callable[[Any], Sequence[Sample]]:
        batch = self._first_batch(trainer)
        return continuations(trainer, batch, self.vocabulary, self._config.samples)

    def result(self, evaluation: Mapping[str, float], baseline: float) -> str:
        assert isinstance(self._data, TextBlocksConfig)
        loss = evaluation["loss"]
        where = "across documents" if self._data.across_documents else "within documents"
        return (
            f"validation perplexity {math.exp(loss):.3f} per token ({loss:.4f} nats, "
            f"{evaluation['bits_per_byte']:.4f} bits per byte) by non-overlapping blocks of "
            f"{self._data.input_length} tokens {where}; the unigram distribution of the training "
            f"text has {math.exp(baseline):.2f}"
        )
