"""The configuration of a fine-tuning run."""

import dataclasses
from typing import Annotated, Literal

from spade_jax.config import (
    MAX_COUNT,
    DropoutRate,
    ModelConfig,
    Range,
    check_fields,
    require,
    require_pattern,
)
from spade_jax.data.task_config import TaskConfig
from spade_jax.decoding.config import BeamConfig
from spade_jax.objectives.config import LossConfig
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """All that a run depends on.

    Attributes:
      init_from: workdir of the run whose parameters this one begins with: those that are best by
        its `train.best_metric`, or else its newest. None begins with random ones; then `model`
        must be set. A run that goes on needs it no more.
      task: the data. Its vocabulary must be the checkpoint's.
      model: None is the checkpoint's.
      dropout_rate, dtype: of the model; None leaves them as they are.
      new_parameters: regular expressions of whole parameter paths that need not be in the
        checkpoint, and then begin at random. All others must be.
      decoding: how predictions are written, of at most `task.target_length` tokens.
      eval_examples: of each evaluation set, the most that are evaluated during training; the end
        evaluates all.
      eval_only: evaluates the run's best parameters, or those of `init_from` where it has none,
        and trains nothing.
      print_sharding: prints where each parameter lies, and trains nothing.
    """

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
    eval_only: bool = False
    print_sharding: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "")
        require(self.init_from != "", "init_from", "", "must be a workdir, or None")
        require(
            self.init_from is not None or self.model is not None,
            "init_from",
            self.init_from,
            "must name the workdir of a pre-training run (or set model, to begin at random)",
        )
        require(
            self.eval_only or not self.task.local or bool(self.task.patterns("train")),
            "task.train",
            self.task.train,
            "must name a table to train on, or set eval_only",
        )
        require(
            self.eval_only or any("train" in task.splits for task in self.task.tasks),
            "task.name",
            self.task.name,
            "has no training examples; set eval_only, and init_from to a run that can predict it",
        )
        for pattern in self.new_parameters:
            require_pattern("new_parameters", pattern)
        require(
            self.train.eval_batches is None,
            "train.eval_batches",
            self.train.eval_batches,
            "must be None: eval_examples says how many examples are evaluated in training",
        )
