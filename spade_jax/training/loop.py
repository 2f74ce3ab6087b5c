"""The loop: trains, evaluates, saves, stops when told to, and goes on where it stopped.

It knows nothing of what the model learns: programs give it batches, and a function that evaluates.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from spade_jax.config import ConfigError
from spade_jax.training import hosts, sharding
from spade_jax.training.checkpoints import Checkpoints
from spade_jax.training.config import RunError, TrainConfig
from spade_jax.training.goodput import Goodput, utilisation
from spade_jax.training.screen import ProgressLine, Rate
from spade_jax.training.step import Trainer, TrainState
from spade_jax.training.workdir import Records

# Settings that a second start in the same workdir may change: no update depends on them. With
# another mesh the sums of a batch are taken in another order, and equal to rounding only.
MAY_CHANGE = (
    "train.eval_every",
    "train.eval_batches",
    "train.checkpoint_every",
    "train.keep",
    "train.patience",
    "train.log_every",
    "mesh.",
    # The position in the data knows what is in it.
    "data.cache",
    "print_sharding",
)


# Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = ("loss", "bits_per_byte")


class TrainingDiverged(RunError):
    """A loss or an update that is not finite: the message says where, and what to try."""


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
      baseline: validation loss to draw beside the curve, or None.
      step_flops: of the model in one update, for its utilisation of the devices, or None.
    """

    train: BatchIterator
    evaluate: Callable[[Any], Mapping[str, float]]
    vocabulary_digest: str
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
      best_step: the step with the best value of `TrainConfig.best_metric`, or None.
    """

    state: TrainState
    step: int
    finished: bool
    was_finished: bool
    evaluation: Mapping[str, float] | None
    best_step: int | None


def check_same_run(
    checkpoints: Checkpoints,
    settings: Mapping[str, Any],
    vocabulary_digest: str,
    may_change: tuple[str, ...] = MAY_CHANGE,
) -> None:
    """Raises ConfigError where the workdir's checkpoints are another configuration's."""
    if checkpoints.newest is None:
        return
    about = checkpoints.about()
    before, now = _flat(about["settings"]), _flat(settings)
    if _looks_at_no_end(settings):
        may_change += ("train.steps",)
    differing = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name) and not name.startswith(may_change)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{checkpoints.directory}: holds checkpoints of another configuration: "
            f"{'; '.join(differing[:3])}{more}; use another workdir or the same settings"
        )
    if about["vocabulary"] != vocabulary_digest:
        raise ConfigError(
            f"{checkpoints.directory}: its checkpoints were trained with another vocabulary "
            f"(digest {about['vocabulary'][:12]}) than data.vocabulary now gives (digest "
            f"{vocabulary_digest[:12]}); use another workdir or the same vocabulary file"
        )


def _looks_at_no_end(settings: Mapping[str, Any]) -> bool:
    """Whether no update depends on how many there are."""
    return _flat(settings).get("optimizer.schedule") in ("constant", "inverse_sqrt")


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if isinstance(settings, Mapping):
        items: Iterable[tuple[Any, Any]] = settings.items()
    elif isinstance(settings, list | tuple):
        items = enumerate(settings)
    else:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def run(
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
    """
    about = {"settings": settings, "vocabulary": data.vocabulary_digest}
    goodput = Goodput()
    with goodput.lost_to("start"):
        if checkpoints.newest is None:
            step, state = 0, trainer.init()
        else:
            for damage in checkpoints.damaged.values():
                console.print(f"Damaged checkpoint moved aside: {damage}.")
            step = checkpoints.newest
            state, position = checkpoints.restore(trainer.state_shapes)
            data.train.set_state(position)
            console.print(f"Going on from the checkpoint of step {step}.")
    records = Records(workdir, step, settings)

    def outcome(finished: bool, was_finished: bool) -> Outcome:
        evaluated = records.evaluations
        best = best_step(evaluated, config)
        return Outcome(state, step, finished, was_finished, evaluated.get(step), best)

    evaluated = records.evaluations
    if step in evaluated and (step >= config.steps or stale(evaluated, config)):
        records.close()
        console.print(
            f"This run is finished, at step {step}. For more, raise train.steps"
            f"{'' if _looks_at_no_end(settings) else ' in a new workdir'}."
        )
        return outcome(finished=True, was_finished=True)

    saved_step = first_step = step
    # Each process counts the tokens of its own rows.
    parts = sharding.data_shard(trainer.mesh).count
    pending: Callable[[], None] | None = None
    measured: Mapping[str, jax.Array] | None = None
    progress = ProgressLine(console, step, config.steps)

    def report(step: int, tokens: int, on_device: Mapping[str, jax.Array]) -> None:
        metrics = {name: value.item() for name, value in on_device.items()}
        for name in ("loss", "grad_norm", "update_norm"):
            if not math.isfinite(metrics[name]):
                last = (
                    f"the last good checkpoint is step {saved_step}"
                    if saved_step
                    else "there is no checkpoint yet"
                )
                raise TrainingDiverged(
                    f"step {step}: {name} = {metrics[name]}, loss = {metrics['loss']}: training "
                    f"stopped; {last}. Try a lower "
                    "optimizer.learning_rate, a longer optimizer.warmup_steps, a lower "
                    "optimizer.clip_norm, or model.dtype 'float32'"
                )
        rate = progress.update(step, tokens, metrics)
        if step % config.log_every == 0 or step == config.steps:
            records.write("train", step, metrics | timing(rate))

    def timing(rate: Rate | None) -> dict[str, float]:
        """What differs from run to run."""
        if rate is None:
            return goodput.shares()
        devices = trainer.mesh.devices
        values = {
            "tokens_per_second": rate.tokens,
            "tokens_per_second_per_device": rate.tokens / devices.size,
        }
        if data.step_flops is not None:
            flops = data.step_flops * rate.steps
            mfu = utilisation(flops, devices.size, devices.flat[0].device_kind)
            values |= {} if mfu is None else {"mfu": mfu}
        return values | goodput.shares()

    with hosts.stop_signals() as signals, hosts.losses_named(), contextlib.ExitStack() as stack:
        stack.callback(records.close)
        stack.callback(progress.close)
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
            if pending is not None and (evaluating or saving):
                pending()
                pending = None
                progress.pause()
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
                best = best_step(records.evaluations, config)
                last = last or stale(records.evaluations, config)
                saving = saving or last or step == best
            if saving and step != saved_step:
                best = best_step(records.evaluations, config)
                with goodput.lost_to("checkpoint"):
                    checkpoints.save(step, state, data.train.get_state, about, best)
                saved_step = step
            if last or stop:
                break
            # Step n is on its way before the metrics of n - 1 are read: the device never waits.
            idle = measured is None or measured["loss"].is_ready()  # type: ignore[attr-defined]
            with goodput.lost_to("data") if idle else contextlib.nullcontext():
                batch = next(data.train)
            tokens = parts * np.count_nonzero(batch["encoder_input_tokens"])
            tokens += parts * np.count_nonzero(batch["decoder_target_tokens"])
            placed = sharding.place(batch, trainer.mesh)
            compiling = step == first_step
            with goodput.lost_to("compile") if compiling else contextlib.nullcontext():
                state, measured = trainer.train_step(state, placed)
            step += 1
            if pending is not None:
                pending()
            pending = _later(report, step, tokens, measured)
        checkpoints.wait()
        # Also where the signal came with the last evaluation: who called this has more to do.
        stop = signals.received
    if stop:
        console.print(f"Stopped and saved at step {step}; the same command goes on from there.")
    return outcome(finished=not stop, was_finished=False)


def best_step(evaluations: Mapping[int, Mapping[str, float]], config: TrainConfig) -> int | None:
    """The first of the steps with the best value of `config.best_metric`; None without one."""
    if config.best_metric is None or not evaluations:
        return None
    metric = config.best_metric
    sign = -1 if metric.rpartition("/")[-1] in LOWER_IS_BETTER else 1
    return min(evaluations, key=lambda step: (-sign * evaluations[step][metric], step))


def stale(evaluations: Mapping[int, Mapping[str, float]], config: TrainConfig) -> bool:
    """Whether the last `config.patience` evaluations all were no better than one before them."""
    best = best_step(evaluations, config)
    if best is None or config.patience is None:
        return False
    return sum(step > best for step in evaluations) >= config.patience


def _later(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)
