"""Sequence to sequence: an encoder-decoder learns to write targets for inputs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from spade_jax import partition
from spade_jax.config import EncoderDecoderConfig
from spade_jax.models.checks import check_implementations, check_stack
from spade_jax.models.flops import train_step_flops
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.objectives.tokens import TokenObjective, segments_of
from spade_jax.ops.token_scores import TokenScores


def _encoder(model: Any, batch: Seq2SeqBatch, key: jax.Array) -> jax.Array:
    """A sum over all that the encoder gives."""
    encoded = model.encode(
        batch.inputs, segment_ids=(batch.inputs != 0).astype(int), dropout_key=key
    )
    return jnp.sum(encoded.astype(jnp.float32) ** 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Seq2Seq(TokenObjective):
    """The cross entropy of each target, given the inputs and the targets before."""

    batch: ClassVar[type[Seq2SeqBatch]] = Seq2SeqBatch
    model: ClassVar[type[EncoderDecoderConfig]] = EncoderDecoderConfig
    parts: ClassVar[Mapping[str, Callable[..., jax.Array]]] = {"encoder": _encoder}

    def scores(self, model: Any, batch: Seq2SeqBatch, key: jax.Array | None) -> TokenScores:
        return model(
            batch.inputs,
            batch.shifted,
            encoder_segment_ids=segments_of(batch.input_segments, batch.inputs),
            encoder_positions=batch.input_positions,
            decoder_segment_ids=segments_of(batch.target_segments, batch.targets),
            decoder_positions=batch.target_positions,
            dropout_key=key,
            targets=batch.targets,
        )

    def flops(self, config: EncoderDecoderConfig, rows: int, lengths: Sequence[int]) -> float:
        return train_step_flops(config, rows, *lengths)

    def check(
        self, config: EncoderDecoderConfig, lengths: Sequence[int], mesh: partition.AnyMesh
    ) -> None:
        """As of `Objective`; targets are filled up, so that only inputs must be cut evenly."""
        super().check(config, lengths, mesh)
        check_implementations(config, mesh)
        check_stack(config, config.encoder, lengths[0], mesh, causal=False)
