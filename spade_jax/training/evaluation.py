"""Evaluation over a whole validation set."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spade_jax import hosts
from spade_jax.training import sharding
from spade_jax.training.step import Trainer

Batches = Iterable[Mapping[str, np.ndarray]]


def evaluate(trainer: Trainer, params: Any, batches: Batches) -> dict[str, float]:
    """The objective's metrics of all `batches`.

    Args:
      batches: this process's part (`sharding.data_shard`) of `trainer.eval_batch_size` rows; rows
        of zeros fill up the last one.
    """
    objective = trainer.objective
    pending = []
    text_bytes = 0.0
    for batch in batches:
        pending.append(trainer.eval_step(params, sharding.place(dict(batch), trainer.mesh)))
        text_bytes += objective.text_bytes(objective.batch.of(batch))
    # Processes that bring the same rows count them once.
    copies = sharding.data_shard(trainer.mesh).copies
    text_bytes = hosts.total(text_bytes) / copies
    # Read at the end, so that the device never waits between batches.
    return objective.metrics(pending, text_bytes)
