"""Language modelling: a decoder learns to predict each token of a text from those before."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from jax import Array

from spade_jax import partition
from spade_jax.config import DecoderOnlyConfig, require
from spade_jax.models.checks import check_implementations, check_stack
from spade_jax.models.flops import decoder_only_flops
from spade_jax.objectives.causal_lm_batch import CausalLMBatch
from spade_jax.objectives.tokens import TokenObjective, segments_of
from spade_jax.ops.token_scores import TokenScores


@dataclasses.dataclass(frozen=True, eq=False)
class CausalLM(TokenObjective):
    """The cross entropy of each token, given those before in its text."""

    batch: ClassVar[type[CausalLMBatch]] = CausalLMBatch
    model: ClassVar[type[DecoderOnlyConfig]] = DecoderOnlyConfig

    def scores(self, model: Any, batch: CausalLMBatch, key: Array | None) -> TokenScores:
        return model(
            batch.inputs,
            segment_ids=segments_of(batch.segments, batch.targets),
            positions=batch.positions,
            dropout_key=key,
            targets=batch.targets,
        )

    def flops(self, config: DecoderOnlyConfig, rows: int, lengths: Sequence[int]) -> float:
        return 3 * rows * decoder_only_flops(config, *lengths)

    def check(
        self, config: DecoderOnlyConfig, lengths: Sequence[int], mesh: partition.AnyMesh
    ) -> None:
        """As of `Objective`; sequences are filled up to what the mesh can cut evenly."""
        super().check(config, lengths, mesh)
        require(
            config.adaptive is None or self.loss.label_smoothing == 0,
            "loss.label_smoothing",
            self.loss.label_smoothing,
            "must be 0 with model.adaptive, which computes the logits of few tokens",
        )
        check_implementations(config, mesh)
        length = lengths[0] + -lengths[0] % partition.shards("length", mesh)
        check_stack(config, config.decoder, length, mesh, causal=True)
