"""The vocabulary of a fine-tuning run, which is that of the run that it begins with."""

import dataclasses
from typing import Any

from spade_jax.config import ConfigError
from spade_jax.data.config import DataConfig
from spade_jax.runs.open import Run


def resolve_vocabulary(task: Any, start: Run | None) -> Any:
    """The task with the vocabulary of the checkpoint where it names none of its own.

    Raises:
      ConfigError: neither names one.
    """
    if start is None:
        if task.vocabulary is None:
            raise ConfigError("task.vocabulary = None: must be set where init_from is not")
        return dataclasses.replace(task, extra_ids=task.extra_ids or DataConfig.extra_ids)
    return dataclasses.replace(
        task,
        vocabulary=task.vocabulary or start.vocabulary,
        extra_ids=task.extra_ids or start.extra_ids,
    )
