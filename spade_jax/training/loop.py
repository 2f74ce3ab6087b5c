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
    about = {
        "settings": settings,
        "vocabulary": data.vocabulary_digest,
        "data": data.contents,
    }
    goodput = Goodput()
    with goodput.lost_to("start"):
        if checkpoints.newest is None:
            step, state, scores = 0, trainer.init(), dict[int, float]()
        else:
            for damage in checkpoints.damaged.values():
                console.print(f"Damaged checkpoint moved aside: {damage}.")
            step = checkpoints.newest
            state, position = checkpoints.restore(trainer.state_shapes)
            scores = checkpoints.scores()
            data.train.set_state(position)
            console.print(f"Going on from the checkpoint of step {step}.")
    records = Records(workdir, step, settings)
    scores |= scores_of(records.evaluations, config)

    def outcome(finished: bool, was_finished: bool) -> Outcome:
        evaluation = records.evaluations.get(step)
        return Outcome(state, step, finished, was_finished, evaluation, scores)

    if step in records.evaluations and (step >= config.steps or stale(scores, config)):
        records.close()
        console.print(
            f"This run is finished, at step {step}. For more, raise train.steps"
            f"{'' if looks_at_no_end(settings) else ' in a new workdir'}."
        )
        return outcome(finished=True, was_finished=True)

    saved_step = first_step = step
    # Each process counts the tokens of its own rows.
    parts = sharding.data_shard(trainer.mesh).count
    measured: Mapping[str, jax.Array] | None = None
    progress = ProgressLine(console, step, config.steps)
    reports = Reports(
        progress,
        functools.partial(records.write, "train"),
        require_finite,
        log_every=config.log_every,
        steps=config.steps,
        mesh=trainer.mesh,
        goodput=goodput,
        step_flops=data.step_flops,
    )
    profile = Profile(workdir / "tensorboard", config.profile_steps, console)

    with hosts.stop_signals() as signals, hosts.losses_named(), contextlib.ExitStack() as stack:
        stack.callback(records.close)
        stack.callback(progress.close)
        # Of a trace in whose middle something goes wrong, what there is.
        stack.callback(profile.stop)
        while True:
            stop = signals.at(step)
            last = step >= config.steps
            evaluating = (
                (last or step % config.eval_every == 0)
                and step > 0
                and step not in records.evaluations
                and not stop
            )
            saving = last or step % config.checkpoint_every == 0 or stop
            profiled = profile.running and (stop or profile.ends_after(step))
            if evaluating or saving or profiled:
                reports.finish()
            if profiled:
                with goodput.lost_to("profile"):
                    profile.stop()
            if evaluating:
                begin = time.monotonic()
                with goodput.lost_to("evaluation"):
                    metrics = data.evaluate(state.params)
                seconds = time.monotonic() - begin
                records.write("eval", step, {**metrics, "seconds": seconds})
                records.draw(data.baseline)
                values = "  ".join(
                    f"{name} {value:.3f}"
                    for name, value in metrics.items()
                    if isinstance(value, float)
                )
                console.print(f"step {step}/{config.steps}  validation  {values}")
                scores |= scores_of({step: metrics}, config)
                if len(scores) == 2 and tell_nothing(scores):
                    console.print(
                        f"{config.best_metric} is {scores[step]:.3f} at both evaluations: as long "
                        "as it is the same at all, it decides neither which step is the best nor "
                        "when the run ends."
                    )
                last = last or stale(scores, config)
                saving = saving or last or step == best_step(scores, config)
            if saving and step != saved_step:
                known = {"scores": {str(n): score for n, score in scores.items()}}
                best = best_step(scores, config)
                with goodput.lost_to("checkpoint"):
                    checkpoints.save(step, state, data.train.get_state, about | known, best)
                saved_step = step
            if last or stop:
                break
            if profile.begins_with(step + 1):
                reports.finish()
                with goodput.lost_to("profile"):
                    profile.start()
            # Step n is on its way before the metrics of n - 1 are read: the device never waits.
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                idle = measured is None or measured["loss"].is_ready()  # type: ignore[attr-defined]
                with goodput.lost_to("data") if idle else contextlib.nullcontext():
                    batch = next(data.train)
                tokens = parts * trainer.objective.batch.of(batch).num_tokens
                placed = sharding.place(batch, trainer.mesh)
                compiling = step == first_step
                with goodput.lost_to("compile") if compiling else contextlib.nullcontext():
                    state, measured = trainer.train_step(state, placed)
                step += 1
                reports.add(step, tokens, measured, saved_step)
        checkpoints.wait()
        # Also where the signal came with the last evaluation: who called this has more to do.
        stop = signals.received
    if stop:
        console.print(f"Stopped and saved at step {step}; the same command goes on from there.")
    return outcome(finished=not stop, was_finished=False)
