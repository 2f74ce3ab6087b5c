"""Whole updates of the model: by the platform's own implementations, and by the reference's."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.breakdown import NO_GRAPHS
from benchmarks.accelerator.compiling import Attempt, attempt
from benchmarks.accelerator.sizes import OPTIMIZER, Z_LOSS, Batch, Sizes
from spade_jax.config import EncoderDecoderConfig
from spade_jax.models.build import builder
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.telemetry.goodput import utilisation
from spade_jax.training.config import MeshConfig, TrainConfig
from spade_jax.training.sharding import make_mesh, place
from spade_jax.training.step import Trainer, make_trainer

# What the platform chooses, and what all of it is held against.
DEFAULT, REFERENCE = "default", "xla"
# Updates follow each other as in training, where the device does not wait for the host between.
_ROUNDS, _IN_A_ROW = 4, 4


@dataclasses.dataclass
class Update:
    """One that is being compiled.

    Attributes:
      tried: its step; once compiled, of (state, batch).
      traced: the same for a profile, without graphs of kernels.
      batch: on its device.
      flops: of the model's matmuls.
    """

    implementation: str
    size: Batch
    trainer: Trainer
    tried: Attempt
    traced: Attempt
    batch: Any
    flops: float


@dataclasses.dataclass(frozen=True)
class UpdateTime:
    """Of one batch and implementation.

    Attributes:
      milliseconds, tokens_per_second: None where it did not run; `reason` then says why.
      mfu: of the device's peak; None where that is not known.
      peak_mib: MiB of arguments and temporaries, as the compiler says.
      ratio: how many times as long as DEFAULT it takes.
      loss: of the last update.
    """

    batch: str
    implementation: str
    milliseconds: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_mib: float | None = None
    ratio: float | None = None
    loss: float | None = None
    reason: str = ""


def with_implementation(model: EncoderDecoderConfig, implementation: str) -> EncoderDecoderConfig:
    """The model whose operations are all computed by this implementation."""
    if implementation == DEFAULT:
        return model
    s4: Any = model.mixers["s4"]
    return dataclasses.replace(
        model,
        attention=dataclasses.replace(model.attention, implementation=implementation),
        mixers={**model.mixers, "s4": dataclasses.replace(s4, implementation=implementation)},
    )


def begin(sizes: Sizes, size: Batch, implementation: str, *, profiled: bool = False) -> Update:
    """Traces an update on the first device, and begins to compile it.

    Args:
      profiled: also as a profile needs it, where that is another program.
    """
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    model = with_implementation(sizes.model, implementation)
    objective = Seq2Seq(LossConfig(z_loss=Z_LOSS))
    train = TrainConfig(steps=100_000, batch_size=size.rows)
    trainer = make_trainer(builder(model), objective, OPTIMIZER, train, mesh)
    rng = np.random.default_rng(0)
    lengths = (size.inputs, size.targets)
    # Tokens of no special meaning, and above 0 whatever else is told of them.
    batch = {
        name: rng.integers(3, model.vocab_size, array.shape, dtype=array.dtype)
        for name, array in objective.batch.types(size.rows, lengths).items()
    }
    placed = place(batch, mesh)
    arguments = trainer.state_shapes, placed
    tried = traced = attempt(trainer.train_step, arguments)
    if profiled and (options := NO_GRAPHS.get(jax.default_backend())) is not None:
        traced = attempt(trainer.train_step, arguments, options)
    flops = objective.flops(model, size.rows, lengths)
    return Update(implementation, size, trainer, tried, traced, placed, flops)


def run(updates: Sequence[Update], say: Callable[[str], None]) -> tuple[list[UpdateTime], Any]:
    """Has updates of one batch take turns.

    Returns:
      Their times, and the state of the first one after its last update; None where it did not run.
    """
    programs: dict[str, Any] = {update.implementation: update.tried.program() for update in updates}
    say(f"updates of {updates[0].size}: {', '.join(programs)} compiled")
    ran: dict[str, Any] = {}
    for update in updates:
        if (step := programs[update.implementation]) is not None:
            try:
                # They have the same parameters.
                state = updates[0].trainer.init()
                ran[update.implementation] = jax.block_until_ready(step(state, update.batch))
            # Such as one without memory for it.
            except Exception as error:
                update.tried.fail(error)
    seconds: dict[str, list[float]] = {name: [] for name in ran}
    for _ in range(_ROUNDS):
        for update in updates:
            name = update.implementation
            if name in ran:
                start = time.perf_counter()
                for _ in range(_IN_A_ROW):
                    ran[name] = programs[name](ran[name][0], update.batch)
                jax.block_until_ready(ran[name])
                seconds[name].append((time.perf_counter() - start) / _IN_A_ROW)
    found = [_time(update, programs, ran, seconds) for update in updates]
    for each in found:
        said = f"{each.milliseconds:.1f} ms" if each.milliseconds else each.reason
        say(f"update of {each.batch}, {each.implementation}: {said}")
    first = ran.get(updates[0].implementation)
    return found, None if first is None else first[0]


def _time(
    update: Update,
    programs: dict[str, Any],
    ran: dict[str, Any],
    seconds: dict[str, list[float]],
) -> UpdateTime:
    name, size = update.implementation, str(update.size)
    if name not in ran:
        return UpdateTime(size, name, reason=update.tried.reason)
    median = float(np.median(seconds[name]))
    memory = programs[name].memory_analysis()
    ratio = None
    if DEFAULT in seconds:
        ratio = float(np.median(np.divide(seconds[name], seconds[DEFAULT])))
    return UpdateTime(
        size,
        name,
        1e3 * median,
        update.size.tokens / median,
        utilisation(update.flops / median, 1, jax.devices()[0].device_kind),
        (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20,
        ratio,
        float(ran[name][1]["loss"]),
    )
