"""The loop: trains, evaluates, saves, stops when told to, and goes on where it stopped.

It knows nothing of what the model learns: programs give it an objective's trainer, batches, and a
function that evaluates.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from spade_jax import hosts
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.identity import looks_at_no_end
from spade_jax.runs.scores import best_step, scores_of, stale, tell_nothing
from spade_jax.runs.workdir import Records
from spade_jax.telemetry.goodput import Goodput
from spade_jax.telemetry.profile import Profile
from spade_jax.telemetry.reports import Reports
from spade_jax.telemetry.screen import ProgressLine
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
      baseline: validation loss to draw beside the curve, or None.
      step_flops: of the model in one update, for its utilisation of the devices, or None.
    """

    train: BatchIterator
    evaluate: Callable[[Any], Mapping[str, float]]
    vocabulary_digest: str
    contents: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
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
      scores: values of `TrainConfig.best_metric` by step; none without one.
    """

    state: TrainState
    step: int
    finished: bool
    was_finished: bool
    evaluation: Mapping[str, float] | None
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

    On several processes all run this, each with its own part of the data.

    Raises:
      TrainingDiverged: a loss or update that is not finite; it is not saved.
      CheckpointError: a checkpoint that cannot be read or written.
      RunError: a file of the workdir that is damaged.
    """
    goodput = Goodput()
    with goodput.lost_to("start"):
        run = _begin(trainer, data, checkpoints, console)
    records = Records(workdir, run.step, settings)
    run.scores |= scores_of(records.evaluations, config)
    if run.step in records.evaluations and (run.step >= config.steps or stale(run.scores, config)):
        records.close()
        console.print(
            f"This run is finished, at step {run.step}. For more, raise train.steps"
            f"{'' if looks_at_no_end(settings) else ' in a new workdir'}."
        )
        return run.outcome(records, finished=True, was_finished=True)

    about = {
        "settings": settings,
        "vocabulary": data.vocabulary_digest,
        "data": data.contents,
    }
    progress = ProgressLine(console, run.step, config.steps)
    profile = Profile(workdir / "tensorboard", config.profile_steps, console)
    loop = _Loop(
        run, trainer, config, data, checkpoints, about, records, progress, profile, goodput, console
    )
    with hosts.stop_signals() as signals, hosts.losses_named(), contextlib.ExitStack() as stack:
        stack.callback(records.close)
        stack.callback(progress.close)
        # Of a trace in whose middle something goes wrong, what there is.
        stack.callback(profile.stop)
        while loop.goes_on(stop=signals.at(run.step)):
            loop.update()
        checkpoints.wait()
        # Also where the signal came with the last evaluation: who called this has more to do.
        stop = signals.received
    if stop:
        console.print(f"Stopped and saved at step {run.step}; the same command goes on from there.")
    return run.outcome(records, finished=not stop, was_finished=False)


@dataclasses.dataclass
class _Run:
    """Where a run is: its state after so many updates, and the scores of the steps up to there."""

    state: TrainState
    step: int
    scores: dict[int, float]

    def outcome(self, records: Records, *, finished: bool, was_finished: bool) -> Outcome:
        """The end of the loop, at this step."""
        evaluation = records.evaluations.get(self.step)
        return Outcome(self.state, self.step, finished, was_finished, evaluation, self.scores)


def _begin(trainer: Trainer, data: Data, checkpoints: Checkpoints, console: Console) -> _Run:
    """The run at its newest checkpoint that is whole, to whose position the data is set; without
    one, at its beginning."""
    if checkpoints.newest is None:
        return _Run(trainer.init(), 0, {})
    for damage in checkpoints.damaged.values():
        console.print(f"Damaged checkpoint moved aside: {damage}.")
    step = checkpoints.newest
    state, position = checkpoints.restore(trainer.state_shapes)
    scores = checkpoints.scores()
    data.train.set_state(position)
    console.print(f"Going on from the checkpoint of step {step}.")
    return _Run(state, step, scores)


class _Loop:
    """What is done at a step, and the update that leads to the next one.

    Args:
      run: changed in place.
      about: what checkpoints say of the run, besides its scores.
    """

    def __init__(
        self,
        run: _Run,
        trainer: Trainer,
        config: TrainConfig,
        data: Data,
        checkpoints: Checkpoints,
        about: Mapping[str, Any],
        records: Records,
        progress: ProgressLine,
        profile: Profile,
        goodput: Goodput,
        console: Console,
    ):
        self._run = run
        self._trainer = trainer
        self._config = config
        self._data = data
        self._checkpoints = checkpoints
        self._about = about
        self._records = records
        self._profile = profile
        self._goodput = goodput
        self._console = console
        self._reports = Reports(
            progress,
            functools.partial(records.write, "train"),
            require_finite,
            log_every=config.log_every,
            steps=config.steps,
            mesh=trainer.mesh,
            goodput=goodput,
            step_flops=data.step_flops,
        )
        self._saved_step = self._first_step = run.step
        self._measured: Mapping[str, jax.Array] | None = None  # by the newest update
        # Each process counts the tokens of its own rows.
        self._parts = sharding.data_shard(trainer.mesh).count

    def goes_on(self, *, stop: bool) -> bool:
        """Evaluates and saves where that is due; returns whether there is one more update.

        Args:
          stop: saves, and ends here.
        """
        run, config, profile = self._run, self._config, self._profile
        last = run.step >= config.steps
        evaluating = (
            (last or run.step % config.eval_every == 0)
            and run.step > 0
            and run.step not in self._records.evaluations
            and not stop
        )
        saving = last or run.step % config.checkpoint_every == 0 or stop
        profiled = profile.running and (stop or profile.ends_after(run.step))
        if evaluating or saving or profiled:
            self._reports.finish()
        if profiled:
            with self._goodput.lost_to("profile"):
                profile.stop()
        if evaluating:
            self._evaluate()
            last = last or stale(run.scores, config)
            saving = saving or last or run.step == best_step(run.scores, config)
        if saving and run.step != self._saved_step:
            self._save()
        return not (last or stop)

    def _evaluate(self) -> None:
        """Measures the parameters on what is held out; records that, draws it and tells of it."""
        run, metric = self._run, self._config.best_metric
        begin = time.monotonic()
        with self._goodput.lost_to("evaluation"):
            metrics = self._data.evaluate(run.state.params)
        seconds = time.monotonic() - begin
        self._records.write("eval", run.step, {**metrics, "seconds": seconds})
        self._records.draw(self._data.baseline)
        values = "  ".join(
            f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float)
        )
        self._console.print(f"step {run.step}/{self._config.steps}  validation  {values}")
        run.scores |= scores_of({run.step: metrics}, self._config)
        if len(run.scores) == 2 and tell_nothing(run.scores):
            self._console.print(
                f"{metric} is {run.scores[run.step]:.3f} at both evaluations: as long "
                "as it is the same at all, it decides neither which step is the best nor "
                "when the run ends."
            )

    def _save(self) -> None:
        """Begins a checkpoint of this step."""
        run = self._run
        about = {**self._about, "scores": {str(n): score for n, score in run.scores.items()}}
        best = best_step(run.scores, self._config)
        with self._goodput.lost_to("checkpoint"):
            self._checkpoints.save(run.step, run.state, self._data.train.get_state, about, best)
        self._saved_step = run.step

    def update(self) -> None:
        """Sends the next step on its way, and tells of the one before."""
        run, trainer, measured = self._run, self._trainer, self._measured
        if self._profile.begins_with(run.step + 1):
            self._reports.finish()
            with self._goodput.lost_to("profile"):
                self._profile.start()
        # Step n is on its way before the metrics of n - 1 are read: the device never waits.
        with jax.profiler.StepTraceAnnotation("train", step_num=run.step + 1):
            idle = measured is None or measured["loss"].is_ready()  # type: ignore[attr-defined]
            with self._goodput.lost_to("data") if idle else contextlib.nullcontext():
                batch = next(self._data.train)
            tokens = self._parts * trainer.objective.batch.of(batch).num_tokens
            placed = sharding.place(batch, trainer.mesh)
            compiling = run.step == self._first_step
            with self._goodput.lost_to("compile") if compiling else contextlib.nullcontext():
                run.state, self._measured = trainer.train_step(run.state, placed)
            run.step += 1
            self._reports.add(run.step, tokens, self._measured, self._saved_step)
