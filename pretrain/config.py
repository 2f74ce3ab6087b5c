"""The configuration of a pre-training run."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from spade_jax.config import (
    ConfigError,
    DropoutRate,
    ModelConfig,
    Range,
    check_fields,
    require,
    require_choice,
)
from spade_jax.data.config import DataConfig, TrainingData
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
      model: None is that of the run which `init_from` names.
      init_from: workdir of a run whose parameters this one begins with, and nothing else of it:
        those that are best by its `train.best_metric`, or else its newest. Its vocabulary must be
        this one's. None begins with random ones. A run that goes on needs it no more.
      dropout_rate, dtype: of the model; None leaves them as they are.
      data: what it learns from, and so the objective: text whose masked spans an encoder-decoder
        fills in, or blocks of text that a decoder continues.
      train: how long, in what portions, and what is measured and saved on the way.
      optimizer: how parameters follow the gradient.
      loss: what is minimised.
      mesh: how devices share the work.
      samples: held-out passages that the finished model fills in, or continues, on the screen.
    """

    MOVED: ClassVar[Mapping[str, str]] = {"print_sharding": "--print_sharding"}

    model: ModelConfig | None
    train: TrainConfig
    data: TrainingData = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    samples: Annotated[int, Range(0, MAX_BATCH)] = 3
    init_from: str | None = None
    dropout_rate: DropoutRate | None = None
    dtype: Literal["float32", "bfloat16"] | None = None

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
        require(self.init_from != "", "init_from", "", "must be a workdir, or None")
        require(
            self.model is not None or self.init_from is not None,
            "model",
            None,
            "must be set where init_from is not",
        )
        if self.model is not None:
            require(
                self.model.kind == self.data.MODEL,
                "model.kind",
                self.model.kind,
                f"must be {self.data.MODEL!r}, which is what learns from data.kind = "
                f"{self.data.kind!r}",
            )
            self.model.require_lengths(*self.data.lengths)

    @property
    def own_model(self) -> ModelConfig:
        """The model.

        Raises:
          ConfigError: it is still to be taken from the run that `init_from` names.
        """
        if self.model is None:
            raise ConfigError("model = None: must be set here, where init_from is not read")
        return self.model
