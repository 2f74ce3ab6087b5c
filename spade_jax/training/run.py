"""A run that another program begins with or uses: its parameters, model and vocabulary."""

import dataclasses
from pathlib import Path

from spade_jax.config import ConfigError, ModelConfig, from_dict
from spade_jax.training.best import best_step
from spade_jax.training.checkpoints import Checkpoints
from spade_jax.training.config import TrainConfig
from spade_jax.training.workdir import read_metrics


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds.

    Attributes:
      workdir: where it is.
      step: of the checkpoint that is best by the run's `train.best_metric`, or else the newest.
      model: the model's configuration.
      vocabulary, extra_ids, input_length: settings of the run's data.
      vocabulary_digest: equal for equal vocabularies.
    """

    workdir: Path
    checkpoints: Checkpoints
    step: int
    model: ModelConfig
    vocabulary: str
    extra_ids: int
    input_length: int
    vocabulary_digest: str


def open_run(workdir: Path, setting: str) -> Run:
    """The run of another workdir.

    Args:
      setting: what named the workdir, for the message.

    Raises:
      ConfigError: it has no checkpoints.
      CheckpointError: it has some, but none can be read.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    if checkpoints.newest is None:
        raise ConfigError(
            f"{setting} = {str(workdir)!r}: holds no checkpoint; must be the workdir of a run, in "
            "which there is a directory `checkpoints`"
        )
    return run_of(checkpoints)


def run_of(checkpoints: Checkpoints) -> Run:
    """The run that left checkpoints, of which at least one can be read."""
    assert checkpoints.newest is not None
    workdir = checkpoints.directory.parent
    about = checkpoints.about()
    settings = about["settings"]
    data = settings.get("data") or settings["task"]  # of pre-training, of fine-tuning
    evaluations = {
        line["step"]: line
        for line in read_metrics(workdir / "metrics.jsonl")
        if line["kind"] == "eval" and line["step"] <= checkpoints.newest
    }
    best = best_step(evaluations, from_dict(TrainConfig, settings["train"]))
    return Run(
        workdir,
        checkpoints,
        checkpoints.newest if best is None else best,
        from_dict(ModelConfig, settings["model"]),
        data["vocabulary"],
        data["extra_ids"],
        data["input_length"],
        about["vocabulary"],
    )
