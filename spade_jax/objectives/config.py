"""Settings of objectives, as frozen dataclasses that know no framework."""

import dataclasses
from typing import Annotated

from spade_jax.config import Range, check_fields

# What an evaluation measures where tokens are predicted, for `train.best_metric`.
TOKEN_METRICS = ("loss", "accuracy", "bits_per_byte")
# The same where classes are.
CLASS_METRICS = ("loss", "accuracy")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The cross entropy of the target tokens.

    Attributes:
      z_loss: weight of log(Z) ** 2, which keeps the softmax normaliser Z near 1.
      label_smoothing: probability moved from the target to all other tokens evenly.
    """

    z_loss: Annotated[float, Range(0, 1000)] = 0.0
    label_smoothing: Annotated[float, Range(0, 1, below=True)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "loss.")
