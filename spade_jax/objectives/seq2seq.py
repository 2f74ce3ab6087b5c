"""Sequence to sequence: an encoder-decoder learns to write targets for inputs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax import partition
from spade_jax.config import EncoderDecoderConfig
from spade_jax.models.checks import check_implementations, check_stack
from spade_jax.models.flops import train_step_flops
from spade_jax.objectives.base import Objective
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.objectives.tokens import TokenSums, token_metrics, token_sums


def _encoder(model: Any, batch: Seq2SeqBatch, key: jax.Array) -> jax.Array:
    """A sum over all that the encoder gives."""
    encoded = model.encode(
        batch.inputs, segment_ids=(batch.inputs != 0).astype(int), dropout_key=key
    )
    return jnp.sum(encoded.astype(jnp.float32) ** 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Seq2Seq(Objective):
    """The cross entropy of each target, given the inputs and the targets before.

    Attributes:
      loss: what training minimises; evaluation measures the plain cross entropy.
      token_bytes: [v], bytes of text that each token stands for, 0 for sentinels and the end; None
        measures no bits per byte.
    """

    batch: ClassVar[type[Seq2SeqBatch]] = Seq2SeqBatch
    sums: ClassVar[type[TokenSums]] = TokenSums
    model: ClassVar[type[EncoderDecoderConfig]] = EncoderDecoderConfig
    parts: ClassVar[Mapping[str, Callable[..., jax.Array]]] = {"encoder": _encoder}

    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    token_bytes: np.ndarray | None = None

    def __call__(self, model: Any, batch: Seq2SeqBatch, key: jax.Array | None) -> TokenSums:
        return self._sums(model, batch, self.loss, key)

    def measure(self, model: Any, batch: Seq2SeqBatch) -> TokenSums:
        return self._sums(model, batch, LossConfig(), None)

    def metrics(self, sums: Sequence[TokenSums], text_bytes: float) -> dict[str, float]:
        return token_metrics(sums, None if self.token_bytes is None else text_bytes)

    def text_bytes(self, batch: Seq2SeqBatch) -> float:
        """Of the targets that count: what is masked, in span corruption."""
        if self.token_bytes is None:
            return 0.0
        return float(self.token_bytes[batch.counted_targets].sum())

    def flops(self, config: EncoderDecoderConfig, rows: int, lengths: Sequence[int]) -> float:
        return train_step_flops(config, rows, *lengths)

    def check(
        self, config: EncoderDecoderConfig, lengths: Sequence[int], mesh: partition.AnyMesh
    ) -> None:
        """As of `Objective`; targets are filled up, so that only inputs must be cut evenly."""
        super().check(config, lengths, mesh)
        check_implementations(config, mesh)
        check_stack(config, config.encoder, lengths[0], mesh, causal=False)

    def _sums(
        self, model: Any, batch: Seq2SeqBatch, loss: LossConfig, key: jax.Array | None
    ) -> TokenSums:
        beyond = -batch.targets.shape[1] % partition.sequence_shards()
        if beyond:
            batch = batch.each("targets", lambda a: jnp.pad(a, ((0, 0), (0, beyond))))

        def segments(given: Any, tokens: jax.Array) -> jax.Array:
            return (tokens != 0).astype(int) if given is None else given

        scores = model(
            batch.inputs,
            batch.shifted,
            encoder_segment_ids=segments(batch.input_segments, batch.inputs),
            encoder_positions=batch.input_positions,
            decoder_segment_ids=segments(batch.target_segments, batch.targets),
            decoder_positions=batch.target_positions,
            dropout_key=key,
            targets=batch.targets,
        )
        return token_sums(scores, batch.weights > 0, loss)
