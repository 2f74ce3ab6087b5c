"""The cross entropy of target tokens: what objectives that predict tokens have in common."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax import partition
from spade_jax.objectives.base import Objective
from spade_jax.objectives.config import LossConfig
from spade_jax.ops.token_scores import TokenScores
from spade_jax.places import place


class TokenSums(NamedTuple):
    """Sums over target tokens.

    Attributes:
      loss, z_loss: in nats, float32; their sum is minimised.
      correct, tokens: int32.
    """

    loss: jax.Array
    z_loss: jax.Array
    correct: jax.Array
    tokens: jax.Array

    @classmethod
    def zeros(cls) -> Self:
        return cls(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))

    @property
    def minimised(self) -> jax.Array:
        return self.loss + self.z_loss

    @property
    def divisor(self) -> jax.Array:
        return self.tokens

    def means(self) -> dict[str, jax.Array]:
        """Means over target tokens, and how many these are."""
        tokens = jnp.maximum(self.tokens, 1).astype(jnp.float32)
        return {
            "loss": self.loss / tokens,
            "z_loss": self.z_loss / tokens,
            "accuracy": self.correct / tokens,
            "tokens": self.tokens,
        }


def token_losses(scores: TokenScores, config: LossConfig) -> tuple[jax.Array, jax.Array]:
    """Cross entropy and z-loss of each token, both [b, t], float32, in nats.

    With label smoothing s the target has probability 1 - s, each other token s / (v - 1); the
    entropy of that distribution is taken off, so that a perfect prediction costs 0, as in T5.
    """
    loss_bt = scores.log_z - scores.target
    smoothing = config.label_smoothing
    if smoothing > 0:
        assert scores.total is not None
        others = scores.vocabulary_size - 1
        other_losses_bt = others * scores.log_z - (scores.total - scores.target)
        entropy = -((1 - smoothing) * np.log1p(-smoothing) + smoothing * np.log(smoothing / others))
        loss_bt = (1 - smoothing) * loss_bt + smoothing / others * other_losses_bt - entropy
    return loss_bt, config.z_loss * scores.log_z**2


@place("logits and loss")
def token_sums(scores: TokenScores, counts_bt: jax.Array, config: LossConfig) -> TokenSums:
    """Sums over those targets that count.

    Args:
      scores: of each target, see `ops.token_scores`.
      counts_bt: bool [b, t].
    """
    loss_bt, z_loss_bt = token_losses(scores, config)
    return TokenSums(
        jnp.sum(jnp.where(counts_bt, loss_bt, 0.0)),
        jnp.sum(jnp.where(counts_bt, z_loss_bt, 0.0)),
        jnp.sum(scores.best & counts_bt, dtype=jnp.int32),
        jnp.sum(counts_bt, dtype=jnp.int32),
    )


def token_metrics(sums: Sequence[TokenSums], text_bytes: float | None) -> dict[str, float]:
    """Means over all target tokens, each token weighing the same.

    Args:
      text_bytes: of the text that the targets stand for; None where that is not known.

    Returns:
      loss (nats a token), accuracy, bits_per_byte (all of the targets' bits, those of sentinels
      included, over the bytes of their text; where those are known) and tokens.
    """
    # Added in float64.
    tokens = sum(int(part.tokens) for part in sums)
    nats = math.fsum(float(part.loss) for part in sums)
    correct = sum(int(part.correct) for part in sums)
    metrics = {"loss": nats / max(tokens, 1), "accuracy": correct / max(tokens, 1)}
    if text_bytes is not None:
        metrics["bits_per_byte"] = nats / math.log(2) / max(text_bytes, 1)
    return {**metrics, "tokens": tokens}


@dataclasses.dataclass(frozen=True, eq=False)
class TokenObjective(Objective):
    """The cross entropy of the tokens of a batch's last sequence.

    Attributes:
      loss: what training minimises; evaluation measures the plain cross entropy.
      token_bytes: [v], bytes of text that each token stands for, 0 for sentinels and the end; None
        measures no bits per byte.
    """

    sums: ClassVar[type[TokenSums]] = TokenSums

    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    token_bytes: np.ndarray | None = None

    def scores(self, model: Any, batch: Any, key: jax.Array | None) -> TokenScores:
        """Of the targets of a batch, whose last sequence the ambient mesh can cut evenly."""
        raise NotImplementedError

    def __call__(self, model: Any, batch: Any, key: jax.Array | None) -> TokenSums:
        return self._sums(model, batch, self.loss, key)

    def measure(self, model: Any, batch: Any) -> TokenSums:
        return self._sums(model, batch, LossConfig(), None)

    def metrics(self, sums: Sequence[TokenSums], text_bytes: float) -> dict[str, float]:
        return token_metrics(sums, None if self.token_bytes is None else text_bytes)

    def text_bytes(self, batch: Any) -> float:
        """Of the targets that count: of span corruption what is masked."""
        if self.token_bytes is None:
            return 0.0
        return float(self.token_bytes[batch.counted_targets].sum())

    def _sums(self, model: Any, batch: Any, loss: LossConfig, key: jax.Array | None) -> TokenSums:
        beyond = -batch.targets.shape[1] % partition.sequence_shards()
        if beyond:
            predicted = batch.SEQUENCES[-1]
            batch = batch.each(predicted, lambda a: jnp.pad(a, ((0, 0), (0, beyond))))
        return token_sums(self.scores(model, batch, key), batch.weights > 0, loss)


def segments_of(given: Any, tokens: jax.Array) -> jax.Array:
    """The segments of packed rows, or of others: 1, and 0 at padding."""
    return (tokens != 0).astype(int) if given is None else given
