"""The cross entropy of target tokens: what objectives that predict tokens have in common."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

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
