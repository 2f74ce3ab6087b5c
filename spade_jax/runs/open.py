"""A run that another program begins with or uses: its parameters, model and vocabulary."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spade_jax.config import ConfigError, ModelConfig, TokenModelConfig, from_dict, of_kind
from spade_jax.runs.checkpoint_files import CheckpointError, steps_in
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.scores import by_goodness, scores_of, tell_nothing
from spade_jax.runs.workdir import read_evaluations
from spade_jax.training.config import TrainConfig

# What is read here of a run's configuration.
_TEXT = {"vocabulary": str, "extra_ids": int, "input_length": int}
_CLASSES = {"kind": "classification", "encoding": str, "length": int}
_SETTINGS = {"train": dict, "model": dict, "data?": (_TEXT, _CLASSES), "task?": _TEXT}


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which checkpoint is used.

    Attributes:
      step: of it.
      why: the step and the reason, such as "step 120, the best by score".
    """

    step: int
    why: str


def choose(
    checkpoints: Checkpoints,
    scores: Mapping[int, float],
    config: TrainConfig,
    at_hand: int | None = None,
) -> Choice:
    """The best of the checkpoints that can be read, or else the newest of these.

    Args:
      scores: what the run knows of its steps.
      at_hand: the step of the newest one, where it needs no reading.
    """
    newest = checkpoints.newest if at_hand is None else at_hand
    assert newest is not None
    metric = config.best_metric
    lost: list[str] = []
    scored = [] if tell_nothing(scores) else by_goodness(scores, config)
    for step in scored:
        problem = None if step == at_hand else checkpoints.problem(step)
        if problem is None:
            other = f" of those that can be read ({lost[0]})" if lost else ""
            return Choice(step, f"step {step}, the best by {metric}{other}")
        lost.append(problem)
    if metric is None:
        reason = "train.best_metric is None"
    elif tell_nothing(scores):
        value = next(iter(scores.values()))
        reason = f"{metric} was {value:.3f} at every evaluation, and tells nothing"
    elif lost:
        reason = f"none that {metric} is known of can be read ({lost[0]})"
    else:
        reason = f"{metric} is not known of any"
    if checkpoints.damaged and at_hand is None:
        reason += f"; newer, and damaged: {checkpoints.damaged[max(checkpoints.damaged)]}"
    return Choice(newest, f"step {newest}, the newest: {reason}")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a workdir holds.

    Attributes:
      workdir: where it is.
      step: of the checkpoint that `choose` gives.
      why: the step, and why this one, for the reader.
      settings: the whole configuration, as nested dicts and lists.
      model: the model's configuration.
      data: the settings of its data.
      vocabulary_digest: equal for equal vocabularies.
    """

    workdir: Path
    checkpoints: Checkpoints
    step: int
    why: str
    settings: Mapping[str, Any]
    model: ModelConfig
    data: Mapping[str, Any]
    vocabulary_digest: str

    @property
    def vocabulary(self) -> str:
        """Of a model of tokens, its name.

        Raises:
          ConfigError: of another model, as the two below do.
        """
        self._require_tokens()
        return _found(self.data["vocabulary"], self.workdir)

    @property
    def extra_ids(self) -> int:
        self._require_tokens()
        return self.data["extra_ids"]

    @property
    def input_length(self) -> int:
        self._require_tokens()
        return self.data["input_length"]

    def describe_vocabulary(self) -> str:
        """What tokens are, of any model."""
        if "vocabulary" in self.data:
            return f"{self.vocabulary!r} with {self.extra_ids} sentinels"
        return f"encoding {self.data['encoding']!r}"

    def _require_tokens(self) -> None:
        of_kind(self.model, TokenModelConfig, f"{self.workdir}: model")


def open_run(workdir: Path, setting: str, *, alone: bool = False) -> Run:
    """The run of another workdir.

    Args:
      workdir: or the folder of one of its checkpoints, which is then the one that is used.
      setting: what named the workdir, for the message.
      alone: as of `Checkpoints`.

    Raises:
      ConfigError: it is not there, or has no checkpoints.
      CheckpointError: it has some, but none can be read.
    """
    named = f"{setting} = {str(workdir)!r}"
    step = None
    if workdir.parent.name == "checkpoints" and workdir.name.isdecimal():
        step, workdir = int(workdir.name), workdir.parent.parent
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1, alone=alone)
    if checkpoints.newest is None:
        if not workdir.is_dir():
            raise ConfigError(f"{named}: no such folder; must be the workdir of a run")
        if steps_in(workdir):
            raise ConfigError(
                f"{named}: is a folder of checkpoints; must be the workdir around it, "
                f"{str(workdir.parent)!r}"
            )
        raise ConfigError(
            f"{named}: holds no checkpoint; must be the workdir of a run, in which there is a "
            "directory `checkpoints`"
        )
    if step is None:
        return run_of(checkpoints)
    there = ", ".join(map(str, sorted(steps_in(checkpoints.directory))))
    if step not in steps_in(checkpoints.directory):
        raise ConfigError(f"{named}: no such checkpoint; must be one of the steps {there}")
    if (problem := checkpoints.problem(step)) is not None:
        raise CheckpointError(f"{named}: cannot be read ({problem})")
    return run_of(checkpoints, Choice(step, f"step {step}, as it was named"))


def run_of(checkpoints: Checkpoints, choice: Choice | None = None) -> Run:
    """The run that left checkpoints, of which at least one can be read.

    Args:
      choice: which of them is used; None: see `choose`.

    Raises:
      CheckpointError: they say of their run what this version does not know.
      RunError: metrics.jsonl is damaged.
    """
    assert checkpoints.newest is not None
    workdir = checkpoints.directory.parent
    about = checkpoints.about(_SETTINGS)
    settings = about["settings"]
    try:
        data = settings.get("data") or settings["task"]  # of pre-training, of fine-tuning
        config = from_dict(TrainConfig, settings["train"])
        model = from_dict(ModelConfig, settings["model"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(
            f"{checkpoints.directory}: was saved by another version of spade_jax ({error}); open "
            "it with that version"
        ) from None
    if choice is None:
        scores = checkpoints.scores()
        if not scores:  # Of a version that did not keep them there.
            evaluations = read_evaluations(workdir / "metrics.jsonl", up_to=checkpoints.newest)
            scores = scores_of(evaluations, config)
        choice = choose(checkpoints, scores, config)
    return Run(
        workdir,
        checkpoints,
        choice.step,
        choice.why,
        settings,
        model,
        data,
        about["vocabulary"],
    )


def _found(vocabulary: str, workdir: Path) -> str:
    """A vocabulary by its name; where it lies in the workdir itself, by that, which may have been
    moved."""
    beside = workdir / Path(vocabulary).name
    return str(beside) if beside.is_file() else vocabulary
