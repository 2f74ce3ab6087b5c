"""The configuration of a fine-tuning run."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from spade_jax.config import (
    MAX_COUNT,
    DropoutRate,
    ModelConfig,
    Presets,
    Range,
    check_fields,
    require,
    require_pattern,
)
from spade_jax.data.task_config import TaskConfig
from spade_jax.decoding.config import BeamConfig
from spade_jax.models.presets import MODEL_PRESETS
from spade_jax.objectives.config import LossConfig
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig

# What a person still looks at.
MAX_SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """All that a run depends on.

    Attributes:
      init_from: workdir of the run whose parameters this one begins with: those that are best by
        its `train.best_metric`, or else its newest. None begins with random ones; then `model`
        must be set. A run that goes on needs it no more.
      train: how long, in what portions, and what is measured and saved on the way.
      optimizer: how parameters follow the gradient.
      loss: what is minimised.
      mesh: how devices share the work.
      task: the data. Its vocabulary must be the checkpoint's.
      model: None is the checkpoint's.
      dropout_rate, dtype: of the model; None leaves them as they are.
      new_parameters: regular expressions of whole parameter paths that need not be in the
        checkpoint, and then begin at random. All others must be.
      decoding: how predictions are written, of at most `task.target_length` tokens.
      eval_examples: of each evaluation set, the most that are evaluated during training; the end
        evaluates all.
      samples: of each evaluation set, the first examples that are shown with their predictions at
        each evaluation.
    """

    PRESETS: ClassVar[Mapping[str, Presets]] = {"model": MODEL_PRESETS}
    MOVED: ClassVar[Mapping[str, str]] = {
        "eval_only": "--eval_only",
        "print_sharding": "--print_sharding",
    }

    train: TrainConfig
    task: TaskConfig
    init_from: str | None = None
    model: ModelConfig | None = None
    dropout_rate: DropoutRate | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    new_parameters: tuple[str, ...] = ()
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    decoding: BeamConfig = dataclasses.field(default_factory=BeamConfig)
    eval_examples: Annotated[int, Range(1, MAX_COUNT, "for all")] | None = None
    samples: Annotated[int, Range(0, MAX_SAMPLES)] = 3

    def __post_init__(self) -> None:
        check_fields(self, "")
        require(self.init_from != "", "init_from", "", "must be a workdir, or None")
        require(
            self.init_from is not None or self.model is not None,
            "init_from",
            self.init_from,
            "must name the workdir of a pre-training run (or set model, to begin at random)",
        )
        for pattern in self.new_parameters:
            require_pattern("new_parameters", pattern)
        require(
            self.train.eval_batches is None,
            "train.eval_batches",
            self.train.eval_batches,
            "must be None: eval_examples says how many examples are evaluated in training",
        )

    def require_training(self) -> None:
        """Raises ConfigError where there is nothing to train on, and evaluation is all there is."""
        require(
            not self.task.local or bool(self.task.patterns("train")),
            "task.train",
            self.task.train,
            "must name a table to train on, or come with --eval_only",
        )
        require(
            any("train" in task.splits for task in self.task.tasks),
            "task.name",
            self.task.name,
            "has no training examples; give --eval_only, and an init_from that can predict it",
        )
