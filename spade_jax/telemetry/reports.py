"""How updates are told, one step behind: on the screen, and to whoever records them."""

from collections.abc import Callable, Mapping

import jax
from jax.sharding import Mesh

from spade_jax.telemetry.goodput import Goodput, utilisation
from spade_jax.telemetry.screen import ProgressLine, Rate


class Reports:
    """Tells of each update when the next one is on its way, so that the device never waits.

    Args:
      record: keeps the metrics of a step that is to be logged.
      check: raises an error where those of a step cannot be; it is given the step of the last
        checkpoint as well.
      log_every: steps between two that are logged; the last one, `steps`, always is.
      step_flops: of the model in one update, for its utilisation of the devices, or None.
    """

    def __init__(
        self,
        progress: ProgressLine,
        record: Callable[[int, Mapping[str, float]], None],
        check: Callable[[int, Mapping[str, float], int], None],
        *,
        log_every: int,
        steps: int,
        mesh: Mesh,
        goodput: Goodput,
        step_flops: float | None,
    ):
        self._progress = progress
        self._record = record
        self._check = check
        self._log_every = log_every
        self._steps = steps
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

        Raises what `check` raises of the update before.
        """
        self._tell()
        self._waiting = step, tokens, metrics, saved_step

    def finish(self) -> None:
        """Tells of the last update; what follows, until the next one, does not count as its time.

        Raises what `check` raises of this update.
        """
        self._tell()
        self._progress.pause()

    def _tell(self) -> None:
        if self._waiting is None:
            return
        step, tokens, on_device, saved_step = self._waiting
        self._waiting = None
        metrics = {name: value.item() for name, value in on_device.items()}
        self._check(step, metrics, saved_step)
        rate = self._progress.update(step, tokens, metrics)
        if step % self._log_every == 0 or step == self._steps:
            self._record(step, metrics | self._timing(rate))

    def _timing(self, rate: Rate | None) -> dict[str, float]:
        """What differs from run to run."""
        spent = {"seconds": self._goodput.seconds, **self._goodput.shares()}
        if rate is None:
            return spent
        devices = self._mesh.devices
        values = {
            "seconds_per_step": 1 / rate.steps,
            "tokens_per_second": rate.tokens,
            "tokens_per_second_per_device": rate.tokens / devices.size,
        }
        if self._step_flops is not None:
            flops = self._step_flops * rate.steps
            mfu = utilisation(flops, devices.size, devices.flat[0].device_kind)
            values |= {} if mfu is None else {"mfu": mfu}
        return values | spent
