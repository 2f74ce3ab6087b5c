"""Learning to classify: examples, what is said of them, and what a test set says in the end."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pretrain.config import PretrainConfig
from pretrain.ending import Ending
from pretrain.objectives import objective_of
from spade_jax.data.classification import batches, examples
from spade_jax.data.classification.config import ClassificationDataConfig, Split
from spade_jax.data.metrics import by_example, score
from spade_jax.objectives.classification import logits_of
from spade_jax.objectives.classification_batch import ClassificationBatch
from spade_jax.report.bootstrap import interval, resampled
from spade_jax.runs.open import Run
from spade_jax.telemetry.samples import Sample
from spade_jax.training import sharding
from spade_jax.training.loop import BatchIterator
from spade_jax.training.step import Trainer

# Of an example's text, in letters and in tokens.
_SHOWN = 300
# Splits that a run ends with.
EVALUATED: tuple[Split, ...] = ("validation", "test")


def with_names(data: ClassificationDataConfig, before: Run | None) -> ClassificationDataConfig:
    """The settings of some data with what they leave to the data itself; see `examples.with_names`.

    Args:
      before: the run that goes on, or that this one begins with: its alphabet is taken.
    """
    if data.encoding == "characters" and data.alphabet is None and before is not None:
        data = dataclasses.replace(data, alphabet=before.data.get("alphabet"))
    return examples.with_names(data)


Batch = Mapping[str, np.ndarray]


def probabilities(
    trainer: Trainer, kind: type[ClassificationBatch]
) -> Callable[[Any, Batch], np.ndarray]:
    """What gives the probabilities of all classes, float32 [b, classes], for a whole batch, of
    which this process brings its rows."""

    def shares(params: Any, batch: Mapping[str, Any]) -> jax.Array:
        return jax.nn.softmax(logits_of(trainer.model(params), kind.of(batch)))

    compiled = jax.jit(shares, out_shardings=sharding.replicated(trainer.mesh))
    return lambda params, batch: np.asarray(
        compiled(params, sharding.place(dict(batch), trainer.mesh))
    )


class Classes:
    """Classification; see `pretrain.learning.Learning`."""

    sample_names = ("example", "input", "class", "model")

    def __init__(self, config: PretrainConfig):
        assert isinstance(config.data, ClassificationDataConfig)
        self._config, self._settings = config, config.data
        self.objective = objective_of(config)
        self._data = examples.load_data(config.data)
        self.vocabulary_digest = self._data.encoder.digest
        self.vocabulary_setting: tuple[str, str] = ("data.encoding", config.data.encoding)
        labels = self._data.splits["train"].labels
        self._counts = np.bincount(labels, minlength=config.data.classes)
        # Of the run's trainer, compiled once.
        self._probabilities: Callable[[Any, Batch], np.ndarray] | None = None

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

    def sampler(self, trainer: Trainer) -> Callable[[Any], Sequence[Sample]]:
        def samples(params: Any) -> list[Sample]:
            shares = self._shares(trainer, params, "validation", limit=1)[: self._config.samples]
            labels = self._data.splits["validation"].labels
            return [
                Sample(
                    text,
                    self._name(label),
                    self._name(own.argmax()),
                    f"probability {own.max():.2f}",
                )
                for text, label, own in zip(self._texts("validation", len(shares)), labels, shares)
            ]

        return samples

    def result(self, evaluation: Mapping[str, float], baseline: float) -> str:
        return (
            f"validation accuracy {evaluation['accuracy']:.4f} (loss {evaluation['loss']:.4f}) "
            f"{self._practice()}; the most frequent class of the training data has "
            f"{self._majority('validation'):.4f}, guessing by its classes' shares a loss of "
            f"{baseline:.4f}"
        )

    def ending(
        self,
        trainer: Trainer,
        params: Callable[[], Any],
        evaluation: Mapping[str, float],
        baseline: float,
    ) -> Ending:
        ending, own = Ending({}), params()
        for split in EVALUATED:
            if split in self._data.splits:
                self._judge(ending, split, self._shares(trainer, own, split))
        if "test" in ending.splits:
            result = ending.splits["test"]
            accuracy, total = result["metrics"]["accuracy"], result["examples"]
            error = math.sqrt(accuracy * (1 - accuracy) / total)
            ending.said = (
                f"test accuracy {accuracy:.4f} (standard error {error:.4f}, {total:,} examples), "
                f"where the most frequent class has {self._majority('test'):.4f}; validated "
                f"{self._practice()}"
            )
        return ending

    def _judge(self, ending: Ending, split: Split, shares: np.ndarray) -> None:
        """Adds a split's metrics and predictions."""
        labels = self._data.splits[split].labels
        targets = [self._name(label) for label in labels]
        predictions = [self._name(label) for label in shares.argmax(1)]
        metrics = ("accuracy",)
        values = by_example(metrics, targets, predictions)
        drawn = resampled(metrics, targets, predictions, (), values)
        own = shares[np.arange(len(labels)), labels]
        loss = -np.log(np.maximum(own, np.finfo(np.float32).tiny), dtype=np.float64).mean()
        majority = {"accuracy": self._majority(split)}
        ending.splits[split] = {
            "metrics": {"loss": float(loss), **score(metrics, targets, predictions, (), values)},
            "intervals": {"accuracy": interval(drawn["accuracy"])},
            "examples": len(labels),
            "baseline": {"method": "most frequent class", "metrics": majority},
        }
        name = f"predictions-{split}.jsonl"
        names = [self._name(label) for label in range(self._settings.classes)]
        ending.sets.append(
            {"name": split, "split": split, "file": name, "kind": "classes", "labels": names}
        )
        texts = self._texts(split, len(labels))
        ending.predictions[name] = list(zip(texts, targets, predictions))

    def _shares(
        self, trainer: Trainer, params: Any, split: Split, limit: int | None = None
    ) -> np.ndarray:
        """The probabilities of all classes for a split's examples in order, float32 [n, classes].

        Args:
          limit: the most batches; None for all.
        """
        if self._probabilities is None:
            self._probabilities = probabilities(trainer, self.objective.batch)
        shard = sharding.data_shard(trainer.mesh)
        found = [
            self._probabilities(params, batch)
            for batch in batches.evaluation_batches(
                self._data,
                split,
                trainer.eval_batch_size // shard.count,
                shard_index=shard.index,
                num_shards=shard.count,
                limit=limit,
            )
        ]
        # Rows of zeros fill up the last batch.
        return np.concatenate(found)[: len(self._data.splits[split])]

    def _texts(self, split: Split, count: int) -> Iterator[str]:
        """The beginnings of the first examples' texts, those of a pair each on its line."""
        examples, kind = self._data.splits[split], self.objective.batch
        for number in range(count):
            towers = kind.of(examples.batch(np.array([number]))).towers
            texts = [self._data.encoder.text(tokens[0, :_SHOWN]) for tokens, _ in towers]
            yield "\n".join(" ".join(text.split())[:_SHOWN] for text in texts if text is not None)

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
