"""What a configuration has a model learn."""

from typing import Any

import numpy as np

from pretrain.config import PretrainConfig
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.config import TextBlocksConfig
from spade_jax.objectives.causal_lm import CausalLM
from spade_jax.objectives.classification import Classification
from spade_jax.objectives.seq2seq import Seq2Seq


def objective_of(config: PretrainConfig, token_bytes: np.ndarray | None = None) -> Any:
    """The objective (`objectives.base.Objective`) of the configuration's data.

    Args:
      token_bytes: of its vocabulary; None measures no bits per byte.
    """
    if isinstance(config.data, ClassificationDataConfig):
        return Classification(config.data.batch, config.loss)
    if isinstance(config.data, TextBlocksConfig):
        return CausalLM(config.loss, token_bytes)
    return Seq2Seq(config.loss, token_bytes)
