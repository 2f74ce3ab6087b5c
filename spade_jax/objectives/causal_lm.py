"""Language modelling: a decoder learns to predict each token of a text from those before."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from spade_jax import partition
from spade_jax.config import DecoderOnlyConfig, require
from spade_jax.models.checks import check_implementations, check_stack
from spade_jax.models.flops import decoder_only_flops
from spade_jax.objectives.base import Objective
from spade_jax.objectives.causal_lm_batch import CausalLMBatch
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.tokens import TokenSums, token_metrics, token_sums


@dataclasses.dataclass(frozen=True, eq=False)
class CausalLM(Objective):
    """The cross entropy of each token, given those before in its text.

    Attributes:
      loss: what training minimises; evaluation measures the plain cross entropy.
      token_bytes: [v], bytes of text that each token stands for, 0 for the end; None measures no
        bits per byte.
    """

    batch: ClassVar[type[CausalLMBatch]] = CausalLMBatch
    sums: ClassVar[type[TokenSums]] = TokenSums
    model: ClassVar[type[DecoderOnlyConfig]] = DecoderOnlyConfig

    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    token_bytes: np.ndarray | None = None

    def __call__(self, model: Any, batch: CausalLMBatch, key: Array | None) -> TokenSums:
        return self._sums(model, batch, self.loss, key)

    def measure(self, model: Any, batch: CausalLMBatch) -> TokenSums:
        return self._sums(model, batch, LossConfig(), None)

    def metrics(self, sums: Sequence[TokenSums], text_bytes: float) -> dict[str, float]:
        return token_metrics(sums, None if self.token_bytes is None else text_bytes)

    def text_bytes(self, batch: CausalLMBatch) -> float:
        if self.token_bytes is None:
            return 0.0
        return float(self.token_bytes[batch.counted_targets].sum())

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

    def _sums(
        self, model: Any, batch: CausalLMBatch, loss: LossConfig, key: Array | None
    ) -> TokenSums:
        beyond = -batch.targets.shape[1] % partition.sequence_shards()
        if beyond:
            batch = batch.each("text", lambda a: jnp.pad(a, ((0, 0), (0, beyond))))
        segments = batch.segments
        scores = model(
            batch.inputs,
            segment_ids=(batch.targets != 0).astype(int) if segments is None else segments,
            positions=batch.positions,
            dropout_key=key,
            targets=batch.targets,
        )
        return token_sums(scores, batch.weights > 0, loss)
