"""The configuration of a pre-training run."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar

from spade_jax.config import ModelConfig, Range, check_fields, require, require_choice
from spade_jax.data.config import DataConfig
from spade_jax.objectives.config import TOKEN_METRICS, LossConfig
from spade_jax.training.config import (
    MAX_BATCH,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """All that a run depends on.

    Attributes:
      samples: held-out passages that the finished model fills in on the screen.
    """

    MOVED: ClassVar[Mapping[str, str]] = {"print_sharding": "--print_sharding"}

    model: ModelConfig
    train: TrainConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    samples: Annotated[int, Range(0, MAX_BATCH)] = 3

    def __post_init__(self) -> None:
        check_fields(self, "")
        require(
            self.samples <= self.train.batch_size,
            "samples",
            self.samples,
            f"must be at most train.batch_size = {self.train.batch_size}",
        )
        if self.train.best_metric is not None:
            require_choice("train.best_metric", self.train.best_metric, TOKEN_METRICS)
        self.model.require_lengths(self.data.input_length, self.data.decoder_length)
