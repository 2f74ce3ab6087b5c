"""The batches of classification: sequences of tokens, pairs of them, or sequences of numbers.

Rows that only fill up a batch hold zeros: no input is real, and their weight is 0.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

import numpy as np

from spade_jax.objectives.batch import Batch, Feature


@dataclasses.dataclass(frozen=True)
class ClassificationBatch(Batch):
    """What all of them have: rows, each of one class.

    Attributes:
      labels: int32 [b], number of the class, from 0.
      weights: int32 [b], 1, or 0 for a row that fills up the batch.
    """

    SEQUENCES: ClassVar[tuple[str, ...]] = ("inputs",)

    labels: Annotated[Any, Feature("labels", None)]
    weights: Annotated[Any, Feature("weights", None)]

    @property
    def towers(self) -> tuple[tuple[Any, Any], ...]:
        """Of each sequence that a row has: inputs [b, l], and bool [b, l], which of them are real.

        Of arrays of numpy or JAX.
        """
        raise NotImplementedError

    @property
    def num_tokens(self) -> int:
        return sum(int(np.count_nonzero(real)) for _, real in self.towers)


@dataclasses.dataclass(frozen=True)
class TokenBatch(ClassificationBatch):
    """Rows of tokens.

    Attributes:
      inputs: int32 [b, l]; 0 is padding.
    """

    inputs: Annotated[Any, Feature("inputs", "inputs")]

    @property
    def towers(self) -> tuple[tuple[Any, Any], ...]:
        return ((self.inputs, self.inputs != 0),)


@dataclasses.dataclass(frozen=True)
class PairBatch(TokenBatch):
    """Rows of two sequences of tokens, whose relation is the class.

    Attributes:
      others: int32 [b, l], the second of each; 0 is padding.
    """

    others: Annotated[Any, Feature("others", "inputs")]

    @property
    def towers(self) -> tuple[tuple[Any, Any], ...]:
        return ((self.inputs, self.inputs != 0), (self.others, self.others != 0))


@dataclasses.dataclass(frozen=True)
class ScalarBatch(ClassificationBatch):
    """Rows of numbers, such as the pixels of an image, which may all be 0.

    Attributes:
      inputs: float32 [b, l], normalised.
      lengths: int32 [b], how many of them are real.
    """

    inputs: Annotated[Any, Feature("inputs", "inputs", "float32")]
    lengths: Annotated[Any, Feature("lengths", None)]

    @property
    def towers(self) -> tuple[tuple[Any, Any], ...]:
        real = np.arange(self.inputs.shape[-1], dtype=np.int32) < self.lengths[:, None]
        return ((self.inputs, real),)
