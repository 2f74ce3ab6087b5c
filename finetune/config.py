"""The configuration of a fine-tuning run."""

import dataclasses
from typing import Literal

from spade_jax.config import (
    ModelConfig,
    require,
    require_choice,
    require_literals,
    require_pattern,
)
from spade_jax.data.task_config import TaskConfig
from spade_jax.decoding.config import DecodingConfig
from spade_jax.training.config import LossConfig, MeshConfig, OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """All that a run depends on.

    Attributes:
      init_from: workdir of the run whose parameters this one begins with: those that are best by
        its `train.best_metric`, or else its newest. None begins with random ones; then `model`
        must be set.
      task: the data. Its vocabulary must be the checkpoint's.
      model: None is the checkpoint's.
      dropout_rate, dtype: of the model; None leaves them as they are.
      new_parameters: regular expressions of whole parameter paths that need not be in the
        checkpoint, and then begin at random. All others must be.
      decoding: how predictions are written; `max_length` is `task.target_length`.
      eval_examples: of each evaluation set, the most that are evaluated during training; the end
        evaluates all.
      eval_only: evaluates the run's best parameters, or those of `init_from` where it has none,
        and trains nothing.
    """

    train: TrainConfig
    task: TaskConfig
    init_from: str | None = None
    model: ModelConfig | None = None
    dropout_rate: float | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    new_parameters: tuple[str, ...] = ()
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    eval_examples: int | None = None
    eval_only: bool = False

    def __post_init__(self) -> None:
        require_literals(self, "config")
        require(
            self.init_from is not None or self.model is not None,
            "init_from",
            self.init_from,
            "must name the workdir of a pre-training run (or set model, to begin at random)",
        )
        require(
            self.eval_examples is None or self.eval_examples >= 1,
            "eval_examples",
            self.eval_examples,
            "must be at least 1, or None for all",
        )
        require(
            self.decoding.temperature == 0.0,
            "decoding.temperature",
            self.decoding.temperature,
            "must be 0: predictions that are measured are not drawn at random",
        )
        require(
            self.eval_only or not self.task.local or bool(self.task.patterns("train")),
            "task.train",
            self.task.train,
            "must name a table to train on, or set eval_only",
        )
        for pattern in self.new_parameters:
            require_pattern("new_parameters", pattern)
        require(
            self.train.eval_batches is None,
            "train.eval_batches",
            self.train.eval_batches,
            "must be None: eval_examples says how many examples are evaluated in training",
        )
        if self.train.best_metric is not None:
            require_choice("train.best_metric", self.train.best_metric, self.metric_names())

    def metric_names(self) -> tuple[str, ...]:
        """What evaluations may give: loss, score, and each task's own metrics."""
        sets = [(name, task) for task in self.task.tasks for name in task.part_names("validation")]
        prefixes = [f"{name}/" for name, _ in sets] if len(sets) > 1 else [""]
        own = [
            f"{prefix}{metric}"
            for prefix, (_, task) in zip(prefixes, sets)
            for metric in task.metrics
        ]
        return ("loss", "score", *own)
