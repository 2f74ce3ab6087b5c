"""Evaluation over a whole validation set."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spade_jax import hosts
from spade_jax.training import sharding
from spade_jax.training.step import Trainer

Batches = Iterable[Mapping[str, np.ndarray]]


def evaluate(
    trainer: Trainer, params: Any, batches: Batches, token_bytes: np.ndarray
) -> dict[str, float]:
    """Means over all target tokens of `batches`, each token weighing the same.

    Args:
      batches: this process's part (`sharding.data_shard`) of `trainer.eval_batch_size` rows; rows
        of zeros fill up the last one.
      token_bytes: [v], bytes of text that each token stands for; 0 for sentinels and the end.

    Returns:
      loss (nats a token), accuracy, bits_per_byte (all of the targets' bits, those of sentinels
      included, over the bytes of the masked text) and tokens.
    """
    pending = []
    num_bytes = 0.0
    for batch in batches:
        pending.append(trainer.eval_step(params, sharding.place(dict(batch), trainer.mesh)))
        num_bytes += int(token_bytes[_targets(batch)].sum())
    # Processes that bring the same rows count them once.
    copies = sharding.data_shard(trainer.mesh).copies
    num_bytes = hosts.total(num_bytes) / copies
    # Read at the end, so that the device never waits between batches; added in float64.
    tokens = sum(int(sums.tokens) for sums in pending)
    nats = math.fsum(float(sums.loss) for sums in pending)
    correct = sum(int(sums.correct) for sums in pending)
    return {
        "loss": nats / max(tokens, 1),
        "accuracy": correct / max(tokens, 1),
        "bits_per_byte": nats / math.log(2) / max(num_bytes, 1),
        "tokens": tokens,
    }


def _targets(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The target tokens that count, [tokens]."""
    return batch["decoder_target_tokens"][batch["decoder_loss_weights"] > 0]
