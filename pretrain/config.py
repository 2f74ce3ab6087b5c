"""The configuration of a pre-training run."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from spade_jax.config import (
    ConfigError,
    DropoutRate,
    ModelConfig,
    Presets,
    Range,
    check_fields,
    require,
    require_choice,
)
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.config import DataConfig, TrainingData
from spade_jax.models.presets import MODEL_PRESETS
from spade_jax.objectives.config import CLASS_METRICS, TOKEN_METRICS, LossConfig
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
        fills in, blocks of text that a decoder continues, or examples that a classifier classifies.
      train: how long, in what portions, and what is measured and saved on the way; of a classifier
        `best_metric` is "accuracy" where none is set.
      optimizer: how parameters follow the gradient.
      loss: what is minimised.
      mesh: how devices share the work.
      samples: held-out passages that the model fills in, continues or classifies, at each
        evaluation and, whole on the screen, at the end.
    """

    PRESETS: ClassVar[Mapping[str, Presets]] = {"model": MODEL_PRESETS}
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
        self._choose_best_metric()
        require(self.init_from != "", "init_from", "", "must be a workdir, or None")
        require(
            self.model is not None or self.init_from is not None,
            "model",
            None,
            "must be set where init_from is not",
        )
        if self.model is not None:
            self.data.check_model(self.model)

    def _choose_best_metric(self) -> None:
        """Checks it; classifiers have one unless another is set."""
        classes = isinstance(self.data, ClassificationDataConfig)
        if classes and self.train.best_metric is None:
            train = dataclasses.replace(self.train, best_metric="accuracy")
            object.__setattr__(self, "train", train)
        if self.train.best_metric is not None:
            known = CLASS_METRICS if classes else TOKEN_METRICS
            require_choice("train.best_metric", self.train.best_metric, known)

    @property
    def own_model(self) -> ModelConfig:
        """The model.

        Raises:
          ConfigError: it is still to be taken from the run that `init_from` names.
        """
        if self.model is None:
            raise ConfigError("model = None: must be set here, where init_from is not read")
        return self.model
