"""Learning to classify: examples, what is said of them, and what a test set says in the end."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console

from pretrain.config import PretrainConfig
from pretrain.objectives import objective_of
from spade_jax.data.classification import batches, examples
from spade_jax.data.classification.config import ClassificationDataConfig, Split
from spade_jax.objectives.classification import logits_of
from spade_jax.runs.open import Run
from spade_jax.training import sharding
from spade_jax.training.evaluation import Batches, evaluate
from spade_jax.training.loop import BatchIterator
from spade_jax.training.step import Trainer

# Of an example's text.
_SHOWN = 300


def with_names(data: ClassificationDataConfig, before: Run | None) -> ClassificationDataConfig:
    """The settings of some data with what they leave to the data itself; see `examples.with_names`.

    Args:
      before: the run that goes on, or that this one begins with: its alphabet is taken.
    """
    if data.encoding == "characters" and data.alphabet is None and before is not None:
        data = dataclasses.replace(data, alphabet=before.data.get("alphabet"))
    return examples.with_names(data)


class Classes:
    """Classification; see `pretrain.learning.Learning`."""

    def __init__(self, config: PretrainConfig):
        assert isinstance(config.data, ClassificationDataConfig)
        self._config, self._settings = config, config.data
        self.objective = objective_of(config)
        self._data = examples.load_data(config.data)
        self.vocabulary_digest = self._data.encoder.digest
        self.vocabulary_setting: tuple[str, str] = ("data.encoding", config.data.encoding)
        labels = self._data.splits["train"].labels
        self._counts = np.bincount(labels, minlength=config.data.classes)

    def describe(self) -> Iterable[str]:
        return self._data.describe()

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        return self._data.contents()

    def train(self, batch_size: int, shard_index: int = 0, num_shards: int = 1) -> BatchIterator:
        return batches.train_batches(
            self._data, batch_size, shard_index=shard_index, num_shards=num_shards
        )

    def validation(
        self, batch_size: int, limit: int | None, shard_index: int = 0, num_shards: int = 1
    ) -> Iterable[dict[str, np.ndarray]]:
        return batches.evaluation_batches(
            self._data,
            "validation",
            batch_size,
            shard_index=shard_index,
            num_shards=num_shards,
            limit=limit,
        )

    def baseline(self, held_out: Iterable[dict[str, np.ndarray]]) -> float:
        """That of each class's share of the training examples."""
        # One more of each, for a class that is held out only.
        nats = -np.log((self._counts + 1) / (self._counts + 1).sum())
        kept = [batch["labels"][batch["weights"] > 0] for batch in held_out]
        return float(nats[np.concatenate(kept)].mean())

    def show(
        self, trainer: Trainer, params: Any, batch: Mapping[str, np.ndarray], console: Console
    ) -> None:
        kind = self.objective.batch
        count = min(self._config.samples, int(np.count_nonzero(batch["weights"])))
        rows = {name: array[:count] for name, array in batch.items()}

        def score(params: Any, rows: Mapping[str, Any]) -> jax.Array:
            return jax.nn.softmax(logits_of(trainer.model(params), kind.of(rows)))

        everywhere = sharding.replicated(trainer.mesh)
        shares = np.asarray(jax.jit(score, out_shardings=everywhere)(params, rows))
        for number in range(count):
            console.print(f"\nHeld-out example {number + 1}")
            for tokens, _ in kind.of(rows).towers:
                text = self._data.encoder.text(tokens[number])
                if text is not None:
                    console.print(f"  input  {' '.join(text.split())[:_SHOWN]}", markup=False)
            best = int(shares[number].argmax())
            console.print(f"  class  {self._name(rows['labels'][number])}", markup=False)
            share = f"(probability {shares[number, best]:.2f})"
            console.print(f"  model  {self._name(best)} {share}", markup=False)
        console.print()

    def result(self, evaluation: Mapping[str, float], baseline: float) -> str:
        return (
            f"validation accuracy {evaluation['accuracy']:.4f} (loss {evaluation['loss']:.4f}) "
            f"{self._practice()}; the most frequent class of the training data has "
            f"{self._majority('validation'):.4f}, guessing by its classes' shares a loss of "
            f"{baseline:.4f}"
        )

    def tested(self, trainer: Trainer, params: Any) -> str | None:
        if "test" not in self._data.splits:
            return None
        metrics = evaluate(trainer, params, self._test_batches(trainer))
        total = len(self._data.splits["test"])
        error = math.sqrt(metrics["accuracy"] * (1 - metrics["accuracy"]) / total)
        return (
            f"test accuracy {metrics['accuracy']:.4f} (standard error {error:.4f}, {total:,} "
            f"examples), where the most frequent class has {self._majority('test'):.4f}; validated "
            f"{self._practice()}"
        )

    def _test_batches(self, trainer: Trainer) -> Batches:
        shard = sharding.data_shard(trainer.mesh)
        return batches.evaluation_batches(
            self._data,
            "test",
            trainer.eval_batch_size // shard.count,
            shard_index=shard.index,
            num_shards=shard.count,
        )

    def _majority(self, split: Split) -> float:
        """The accuracy of the most frequent class of the training data."""
        labels = self._data.splits[split].labels
        return float((labels == self._counts.argmax()).mean())

    def _practice(self) -> str:
        """What validation is on."""
        data = self._settings
        if data.validate_on_test:
            return "on the test set, as the literature does"
        if data.validation_share:
            return f"on a held-out share of {data.validation_share:g} of the training examples"
        return "on a validation set of its own"

    def _name(self, label: int) -> str:
        return self._settings.labels[label] if self._settings.labels else str(label)
