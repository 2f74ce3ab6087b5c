"""What the loop tells of its updates: on the screen, in the records, and where they go wrong."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from spade_jax.config import RunError
from spade_jax.runs.workdir import Records
from spade_jax.telemetry.goodput import Goodput, utilisation
from spade_jax.telemetry.screen import ProgressLine, Rate
from spade_jax.training.config import TrainConfig


class TrainingDiverged(RunError):
    """A loss or an update that is not finite: the message says where, and what to try."""


class Reports:
    """Tells of each update when the next one is on its way, so that the device never waits.

    Args:
      step_flops: of the model in one update, for its utilisation of the devices, or None.
    """

    def __init__(
        self,
        progress: ProgressLine,
        records: Records,
        config: TrainConfig,
        mesh: Mesh,
        goodput: Goodput,
        step_flops: float | None,
    ):
        self._progress = progress
        self._records = records
        self._config = config
        self._mesh = mesh
        self._goodput = goodput
        self._step_flops = step_flops
        self._waiting: tuple[int, int, Mapping[str, jax.Array], int] | None = None

    def add(
        self, step: int, tokens: int, metrics: Mapping[str, jax.Array], saved_step: int
    ) -> None:
        """Tells of the update before, and keeps this one, whose metrics are still computed.

        Args:
          tokens: of all processes, padding left out.
          saved_step: of the last checkpoint, or 0.

        Raises:
          TrainingDiverged: in the update before.
        """
        self._tell()
        self._waiting = step, tokens, metrics, saved_step

    def finish(self) -> None:
        """Tells of the last update; what follows, until the next one, does not count as its time.

        Raises:
          TrainingDiverged: in this update.
        """
        self._tell()
        self._progress.pause()

    def _tell(self) -> None:
        if self._waiting is None:
            return
        step, tokens, on_device, saved_step = self._waiting
        self._waiting = None
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
        rate = self._progress.update(step, tokens, metrics)
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._records.write("train", step, metrics | self._timing(rate))

    def _timing(self, rate: Rate | None) -> dict[str, float]:
        """What differs from run to run."""
        if rate is None:
            return self._goodput.shares()
        devices = self._mesh.devices
        values = {
            "tokens_per_second": rate.tokens,
            "tokens_per_second_per_device": rate.tokens / devices.size,
        }
        if self._step_flops is not None:
            flops = self._step_flops * rate.steps
            mfu = utilisation(flops, devices.size, devices.flat[0].device_kind)
            values |= {} if mfu is None else {"mfu": mfu}
        return values | self._goodput.shares()
