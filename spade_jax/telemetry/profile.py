"""A trace of some of a run's steps, which TensorBoard shows as their profile."""

from pathlib import Path

import jax
from rich.console import Console

from spade_jax import hosts


class Profile:
    """The trace, which the loop starts and stops.

    Of several processes the first traces its own devices: all run the same program, and on one
    machine their files would have the same name.

    Attributes:
      running: whether a trace is being taken.
    """

    def __init__(self, directory: Path, steps: tuple[int, int] | None, console: Console):
        """
        Args:
          directory: of TensorBoard's events; traces go to `plugins/profile` in it.
          steps: the first and the last one, counted from 1. A run that goes on amid them traces
            the rest, one that goes on after them nothing.
        """
        self._directory = directory
        self._console = console
        self._steps = range(0)
        if steps is not None and hosts.is_first():
            self._steps = range(steps[0], steps[1] + 1)
        self.running = False

    def begins_with(self, step: int) -> bool:
        """Whether to start before this update, of which nothing is on its way yet."""
        return not self.running and step in self._steps

    def ends_after(self, step: int) -> bool:
        """Whether a running trace has all there is once this update is done."""
        return step + 1 not in self._steps

    def start(self) -> None:
        options = jax.profiler.ProfileOptions()
        # Calls of Python would fill the trace, and take their time.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._directory, profiler_options=options)
        self.running = True

    def stop(self) -> None:
        """Writes the trace, if one is being taken. Where it cannot be written, training goes on."""
        if not self.running:
            return
        self.running = False
        try:
            jax.profiler.stop_trace()
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            self._console.print(f"{self._directory}: the profile could not be written ({reason})")
        else:
            self._console.print(f"profile: {self._directory}, for TensorBoard")
