"""The batches of language modelling, under the names that seqio's converters give."""

import dataclasses
from typing import Annotated, Any, ClassVar

import numpy as np

from spade_jax.objectives.batch import Batch, Feature


@dataclasses.dataclass(frozen=True)
class CausalLMBatch(Batch):
    """Rows of text, [b, l]: int32, with 0 for padding.

    Attributes:
      inputs: tokens that the model reads: the one before each target.
      targets: tokens that it predicts.
      weights: of which targets above 0 count.
      segments: of packed rows the text that a token is of, from 1.
      positions: of tokens within their texts, from 0.
    """

    SEQUENCES: ClassVar[tuple[str, ...]] = ("text",)

    inputs: Annotated[Any, Feature("decoder_input_tokens", "text")]
    targets: Annotated[Any, Feature("decoder_target_tokens", "text")]
    weights: Annotated[Any, Feature("decoder_loss_weights", "text")]
    segments: Annotated[Any, Feature("decoder_segment_ids", "text")] = None
    positions: Annotated[Any, Feature("decoder_positions", "text")] = None

    @property
    def num_tokens(self) -> int:
        return int(np.count_nonzero(self.targets))

    @property
    def counted_targets(self) -> Any:
        """The target tokens that count, [n]; of arrays of numpy."""
        return self.targets[self.weights > 0]
