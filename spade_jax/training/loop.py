"""The loop: trains, evaluates, saves, stops when told to, and goes on where it stopped.

It knows nothing of what the model learns: programs give it an objective's trainer, batches, and a
function that evaluates.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from spade_jax import hosts
from spade_jax.ops.attention.dropout import NUMBERS_VERSION
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.identity import Changes, looks_at_no_end, reads_other_data, told
from spade_jax.runs.scores import best_step, scores_of, stale, tell_nothing
from spade_jax.runs.workdir import Records
from spade_jax.telemetry.goodput import Goodput
from spade_jax.telemetry.profile import Profile
from spade_jax.telemetry.reports import Reports
from spade_jax.telemetry.samples import Sample, print_samples
from spade_jax.telemetry.screen import ProgressLine
from spade_jax.telemetry.trackers import open_tracker
from spade_jax.training import sharding
from spade_jax.training.config import TrainConfig
from spade_jax.training.divergence import require_finite
from spade_jax.training.step import Trainer, TrainState


class BatchIterator(Protocol):
    """Endless training batches whose position can be saved."""

    def __next__(self) -> dict[str, np.ndarray]: ...
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...


@dataclasses.dataclass(frozen=True)
class Data:
    """What the loop takes from the data.

    Attributes:
      train: an iterator of batches of `Trainer.batch_size` rows.
      evaluate: parameters -> metrics of what is held out, "loss" among them; of equal parameters
        always the same.
      vocabulary_digest: equal for equal vocabularies.
      contents: for each setting the files that it names, each with a digest of what it holds.
      samples: parameters -> what they make of a few examples, the same each time; called after
        `evaluate`, with what that was.
      baseline: validation loss to draw beside the curve, or None.
      step_flops: of the model in one update, for its utilisation of the devices, or None.
    """

    train: BatchIterator
    evaluate: Callable[[Any], Mapping[str, float]]
    vocabulary_digest: str
    contents: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    samples: Callable[[Any], Sequence[Sample]] = lambda params: ()
    baseline: float | None = None
    step_flops: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the loop ended.

    Attributes:
      state: the train state.
      step: updates done.
      finished: the run is at its end, and evaluated; otherwise a signal stopped it, perhaps
        there.
      was_finished: it was already at the start.
      evaluation: metrics of the step, or None where it was not evaluated.
      evaluations: those of all steps that were.
      scores: values of `TrainConfig.best_metric` by step; none without one.
    """

    state: TrainState
    step: int
    finished: bool
    was_finished: bool
    evaluation: Mapping[str, float] | None
    evaluations: Mapping[int, Mapping[str, float]]
    scores: Mapping[int, float]


def train(
    trainer: Trainer,
    config: TrainConfig,
    data: Data,
    checkpoints: Checkpoints,
    *,
    workdir: Path,
    settings: Mapping[str, Any],
    console: Console,
    changes: Changes = MappingProxyType({}),
) -> Outcome:
    """Trains to `config.steps`, or until SIGTERM or SIGINT, which save and return.

    A run that is killed at any moment and started again ends with the same bits. What makes it so:

    1. A checkpoint of step n holds the state after n updates and the position of the data after
       n batches; it appears on the disk as a whole or not at all.
    2. Lines up to step n are in metrics.jsonl before a checkpoint of step n is begun.
    3. A start restores the newest checkpoint that is whole, sets the data to its position, and
       drops the lines beyond its step.
    4. Step n's randomness is a function of the seed and n alone.
    5. At every step the loop does what is due there and not done yet: evaluate, save, update. So
       an evaluation that was cut off is made up for.

    Args:
      settings: the whole configuration as JSON values, kept in the workdir and in checkpoints.
      changes: settings that are others than those of the newest checkpoint, on purpose; see
        `runs.identity.check_same_run`. With other data it is read from its beginning.

    On several processes all run this, each with its own part of the data.

    Raises:
      TrainingDiverged: a loss or update that is not finite; it is not saved.
      CheckpointError: a checkpoint that cannot be read or written.
      RunError: a file of the workdir that is damaged, or a tracker that cannot be reached.
    """
    loop = _Loop(trainer, config, data, checkpoints, workdir, settings, console, changes)
    if loop.finished:
        loop.records.close()
        console.print(
            f"This run is finished, at step {loop.step}. For more, raise train.steps"
            f"{'' if looks_at_no_end(settings) else ', with --extend'}."
        )
        return loop.outcome(finished=True, was_finished=True)
    stopped = loop.go()
    if stopped:
        console.print(
            f"Stopped and saved at step {loop.step}; the same command goes on from there."
        )
    return loop.outcome(finished=not stopped, was_finished=False)


class _Loop:
    """The loop at work; arguments are as of `train`.

    Attributes:
      step: updates done.
      state: the train state after them.
      scores: values of `TrainConfig.best_metric` by step, up to this one.
      records: what the workdir holds of the run.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: TrainConfig,
        data: Data,
        checkpoints: Checkpoints,
        workdir: Path,
        settings: Mapping[str, Any],
        console: Console,
        changes: Changes,
    ):
        """Begins the run, or goes back to where its newest checkpoint stands."""
        self._trainer, self._config, self._data = trainer, config, data
        self._checkpoints, self._workdir, self._console = checkpoints, workdir, console
        self._changes = changes
        self._about: dict[str, Any] = {
            "settings": settings,
            "vocabulary": data.vocabulary_digest,
            "dropout_numbers": NUMBERS_VERSION,
            "data": data.contents,
            "history": [],
        }
        self._goodput = Goodput()
        with self._goodput.lost_to("start"):
            self.step, self.state, self.scores = self._begin()
        self.records = Records(workdir, self.step, settings)
        if changes:
            self.records.change(self.step, changes)
        self.scores |= scores_of(self.records.evaluations, config)
        self._saved_step = self._first_step = self.step
        self._measured: Mapping[str, jax.Array] | None = None

    def _begin(self) -> tuple[int, TrainState, dict[int, float]]:
        """The first step's, or the newest checkpoint's, step, state and scores."""
        if self._checkpoints.newest is None:
            return 0, self._trainer.init(), {}
        for damage in self._checkpoints.damaged.values():
            self._console.print(f"Damaged checkpoint moved aside: {damage}.")
        step = self._checkpoints.newest
        state, position = self._checkpoints.restore(self._trainer.state_shapes)
        scores = self._checkpoints.scores()
        self._about["history"] = self._checkpoints.about().get("history", [])
        if self._changes:
            then = {name: list(change) for name, change in self._changes.items()}
            self._about["history"].append({"step": step, "changes": then})
        if not reads_other_data(self._changes):
            self._data.train.set_state(position)
        self._console.print(f"Going on from the checkpoint of step {step}.")
        if self._changes:
            anew = "; its data begins anew" if reads_other_data(self._changes) else ""
            self._console.print(f"From here on {told(self._changes)}{anew}.")
        return step, state, scores

    @property
    def finished(self) -> bool:
        """Whether the run is at its end, and evaluated there."""
        ends = self.step >= self._config.steps or stale(self.scores, self._config)
        return ends and self.step in self.records.evaluations

    def outcome(self, *, finished: bool, was_finished: bool) -> Outcome:
        evaluations = self.records.evaluations
        return Outcome(
            self.state,
            self.step,
            finished,
            was_finished,
            evaluations.get(self.step),
            evaluations,
            self.scores,
        )

    def go(self) -> bool:
        """Goes round to the end of the run, or until a signal; returns whether one came."""
        config, mesh = self._config, self._trainer.mesh
        self._parts = sharding.data_shard(mesh).count
        if config.tracker is not None and hosts.is_first():
            settings = self._about["settings"]
            self.records.tracker = open_tracker(config.tracker, self._workdir, settings)
        progress = ProgressLine(self._console, self.step, config.steps)
        self._reports = Reports(
            progress,
            functools.partial(self.records.write, "train"),
            require_finite,
            log_every=config.log_every,
            steps=config.steps,
            mesh=self._trainer.mesh,
            goodput=self._goodput,
            step_flops=self._data.step_flops,
        )
        self._profile = Profile(self._workdir / "tensorboard", config.profile_steps, self._console)
        with hosts.stop_signals() as signals, hosts.losses_named(), contextlib.ExitStack() as stack:
            stack.callback(self.records.close)
            stack.callback(progress.close)
            # Of a trace in whose middle something goes wrong, what there is.
            stack.callback(self._profile.stop)
            while not self._do_what_is_due(stop=signals.at(self.step)):
                self._update()
            self._checkpoints.wait()
            # Also where the signal came with the last evaluation: who called this has more to do.
            return signals.received

    def _do_what_is_due(self, stop: bool) -> bool:
        """Evaluates and saves where that is due and not done yet; returns whether the loop ends."""
        config, step = self._config, self.step
        last = step >= config.steps
        evaluating = (
            (last or step % config.eval_every == 0)
            and step > 0
            and step not in self.records.evaluations
            and not stop
        )
        saving = last or step % config.checkpoint_every == 0 or stop
        profiled = self._profile.running and (stop or self._profile.ends_after(step))
        if evaluating or saving or profiled:
            self._reports.finish()
        if profiled:
            with self._goodput.lost_to("profile"):
                self._profile.stop()
        if evaluating:
            self._evaluate()
            last = last or stale(self.scores, config)
            saving = saving or last or step == best_step(self.scores, config)
        if saving and step != self._saved_step:
            self._save()
        return last or stop

    def _evaluate(self) -> None:
        config, step = self._config, self.step
        begin = time.monotonic()
        with self._goodput.lost_to("evaluation"):
            metrics = self._data.evaluate(self.state.params)
            samples = self._data.samples(self.state.params)
        seconds = time.monotonic() - begin
        self.scores |= scores_of({step: metrics}, config)
        self.records.samples(step, samples)
        self.records.write("eval", step, {**metrics, "seconds": seconds})
        self.records.draw(self._data.baseline, best_step(self.scores, config))
        values = "  ".join(
            f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float)
        )
        self._console.print(f"step {step}/{config.steps}  validation  {values}")
        print_samples(samples, self._console)
        if len(self.scores) == 2 and tell_nothing(self.scores):
            self._console.print(
                f"{config.best_metric} is {self.scores[step]:.3f} at both evaluations: as long "
                "as it is the same at all, it decides neither which step is the best nor "
                "when the run ends."
            )

    def _save(self) -> None:
        known = {"scores": {str(step): score for step, score in self.scores.items()}}
        best = best_step(self.scores, self._config)
        with self._goodput.lost_to("checkpoint"):
            self._checkpoints.save(
                self.step, self.state, self._data.train.get_state, self._about | known, best
            )
        self._saved_step = self.step

    def _update(self) -> None:
        """One step, which is on its way before the metrics of the one before are read: the device
        never waits."""
        goodput, measured = self._goodput, self._measured
        if self._profile.begins_with(self.step + 1):
            self._reports.finish()
            with goodput.lost_to("profile"):
                self._profile.start()
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step + 1):
            idle = measured is None or measured["loss"].is_ready()  # type: ignore[attr-defined]
            with goodput.lost_to("data") if idle else contextlib.nullcontext():
                batch = next(self._data.train)
            # Each process counts the tokens of its own rows.
            tokens = self._parts * self._trainer.objective.batch.of(batch).num_tokens
            placed = sharding.place(batch, self._trainer.mesh)
            compiling = self.step == self._first_step
            with goodput.lost_to("compile") if compiling else contextlib.nullcontext():
                self.state, self._measured = self._trainer.train_step(self.state, placed)
            self.step += 1
            self._reports.add(self.step, tokens, self._measured, self._saved_step)
