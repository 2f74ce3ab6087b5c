"""The batches of sequence-to-sequence learning, under the names that seqio's converters give."""

import dataclasses
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from spade_jax.objectives.batch import Batch, Feature


@dataclasses.dataclass(frozen=True)
class Seq2SeqBatch(Batch):
    """Inputs [b, l] and what is to be written for them, [b, t]: int32, with 0 for padding.

    Attributes:
      inputs: tokens that the encoder reads.
      shifted: tokens that the decoder reads: the targets, shifted right behind a 0.
      targets: tokens that it writes.
      weights: of which targets above 0 count.
      input_segments, target_segments: of packed rows the example that a token is of, from 1; a
        target attends to the inputs of its own.
      input_positions, target_positions: of tokens within their examples, from 0.
    """

    SEQUENCES: ClassVar[tuple[str, ...]] = ("inputs", "targets")

    inputs: Annotated[Any, Feature("encoder_input_tokens", "inputs")]
    shifted: Annotated[Any, Feature("decoder_input_tokens", "targets")]
    targets: Annotated[Any, Feature("decoder_target_tokens", "targets")]
    weights: Annotated[Any, Feature("decoder_loss_weights", "targets")]
    input_segments: Annotated[Any, Feature("encoder_segment_ids", "inputs")] = None
    input_positions: Annotated[Any, Feature("encoder_positions", "inputs")] = None
    target_segments: Annotated[Any, Feature("decoder_segment_ids", "targets")] = None
    target_positions: Annotated[Any, Feature("decoder_positions", "targets")] = None

    @classmethod
    def unpacked(cls, inputs: np.ndarray, targets: np.ndarray) -> Self:
        """Of padded sequences, int32 [..., l] and [..., t], whose targets all count."""
        start = np.zeros_like(targets[..., :1])
        return cls(
            inputs=inputs,
            shifted=np.concatenate([start, targets[..., :-1]], axis=-1),
            targets=targets,
            weights=(targets != 0).astype(np.int32),
        )

    @property
    def num_tokens(self) -> int:
        return int(np.count_nonzero(self.inputs)) + int(np.count_nonzero(self.targets))

    @property
    def counted_targets(self) -> Any:
        """The target tokens that count, [n]; of arrays of numpy."""
        return self.targets[self.weights > 0]
