"""Classification: the cross entropy of a row's class."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
from jax import Array

from spade_jax import partition
from spade_jax.config import ClassifierConfig, require
from spade_jax.models.checks import check_implementations, check_stack
from spade_jax.models.flops import classifier_flops
from spade_jax.objectives.base import Objective
from spade_jax.objectives.classification_batch import ClassificationBatch, PairBatch, ScalarBatch
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.tokens import token_sums
from spade_jax.ops.token_scores import scores_of_logits


class ClassSums(NamedTuple):
    """Sums over examples; rows that fill up a batch are none.

    Attributes:
      loss, z_loss: in nats, float32; their sum is minimised.
      correct, examples: int32.
    """

    loss: Array
    z_loss: Array
    correct: Array
    examples: Array

    @classmethod
    def zeros(cls) -> Self:
        return cls(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))

    @property
    def minimised(self) -> Array:
        return self.loss + self.z_loss

    @property
    def divisor(self) -> Array:
        return self.examples

    def means(self) -> dict[str, Array]:
        """Means over examples, and how many these are."""
        examples = jnp.maximum(self.examples, 1).astype(jnp.float32)
        return {
            "loss": self.loss / examples,
            "z_loss": self.z_loss / examples,
            "accuracy": self.correct / examples,
            "examples": self.examples,
        }


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """The cross entropy of the class of each row.

    Attributes:
      batch: the kind of batches, which depends on the data.
      loss: what training minimises; evaluation measures the plain cross entropy.
    """

    sums: ClassVar[type[ClassSums]] = ClassSums
    model: ClassVar[type[ClassifierConfig]] = ClassifierConfig

    batch: type[ClassificationBatch]  # type: ignore[misc]  # Others have one kind only.
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)

    def __call__(self, model: Any, batch: ClassificationBatch, key: Array | None) -> ClassSums:
        return _sums(logits_of(model, batch, key), batch, self.loss)

    def measure(self, model: Any, batch: ClassificationBatch) -> ClassSums:
        return _sums(logits_of(model, batch), batch, LossConfig())

    def metrics(self, sums: Sequence[ClassSums], text_bytes: float) -> dict[str, float]:
        # Added in float64.
        examples = sum(int(part.examples) for part in sums)
        nats = math.fsum(float(part.loss) for part in sums)
        correct = sum(int(part.correct) for part in sums)
        count = max(examples, 1)
        return {"loss": nats / count, "accuracy": correct / count, "examples": examples}

    def flops(self, config: ClassifierConfig, rows: int, lengths: Sequence[int]) -> float:
        return 3 * rows * classifier_flops(config, *lengths)

    def check(
        self, config: ClassifierConfig, lengths: Sequence[int], mesh: partition.AnyMesh
    ) -> None:
        """As of `Objective`; sequences are filled up to what the mesh can cut evenly."""
        super().check(config, lengths, mesh)
        numbers, pairs = self.batch is ScalarBatch, self.batch is PairBatch
        require(
            (config.vocab_size is None) == numbers,
            "model.vocab_size",
            config.vocab_size,
            "must be None, for inputs are numbers" if numbers else "must be that of the tokens",
        )
        require(
            (config.pair is not None) == pairs,
            "model.pair",
            config.pair,
            'must be "concat" or "nli", for rows are pairs' if pairs else "must be None: no pairs",
        )
        check_implementations(config, mesh)
        length = lengths[0] + -lengths[0] % partition.shards("length", mesh)
        check_stack(config, config.encoder, length, mesh, causal=config.causal)


def logits_of(model: Any, batch: ClassificationBatch, key: Array | None = None) -> Array:
    """Float32 [b, classes].

    Args:
      key: of dropout; None drops nothing.
    """
    beyond = -batch.towers[0][0].shape[1] % partition.sequence_shards()

    def filled(array: Any) -> Array:
        return jnp.pad(array, ((0, 0), (0, beyond))) if beyond else jnp.asarray(array)

    inputs, real = (tuple(map(filled, arrays)) for arrays in zip(*batch.towers, strict=True))
    if len(inputs) == 1:
        return model(inputs[0], segment_ids=real[0].astype(jnp.int32), dropout_key=key)
    return model(
        jnp.stack(inputs, axis=1),
        segment_ids=jnp.stack(real, axis=1).astype(jnp.int32),
        dropout_key=key,
    )


def _sums(logits: Array, batch: ClassificationBatch, config: LossConfig) -> ClassSums:
    """Of logits [b, classes]."""
    scores = scores_of_logits(logits, jnp.asarray(batch.labels))
    return ClassSums(*token_sums(scores, jnp.asarray(batch.weights) > 0, config))
