"""What one sees of a run: the overview of parameters and the progress line."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from spade_jax import hosts
from spade_jax.trees import paths

_PLAIN_LINE_SECONDS = 5.0


def parameter_overview(params: Any, trainable: frozenset[str], depth: int = 2) -> Table:
    """A table of modules, `depth` names deep, with their parameters' number, bytes and state."""
    modules: dict[str, list[tuple[str, Any]]] = {}
    for name, leaf in paths(params).items():
        parent = name.split("/")[:-1] or [name]
        modules.setdefault("/".join(parent[:depth]), []).append((name, leaf))
    table = Table(title="Parameters", title_justify="left")
    table.add_column("module")
    for column in ("parameters", "bytes"):
        table.add_column(column, justify="right")
    table.add_column("trained")
    total = np.zeros(2, np.int64)
    for module, leaves in sorted(modules.items()):
        size = np.array(
            [sum(x.size for _, x in leaves), sum(x.size * x.dtype.itemsize for _, x in leaves)]
        )
        total += size
        free = sum(name in trainable for name, _ in leaves)
        state = "yes" if free == len(leaves) else "frozen" if free == 0 else "in part"
        table.add_row(module, f"{size[0]:,}", format_bytes(size[1]), state)
    table.add_section()
    table.add_row("total", f"{total[0]:,}", format_bytes(total[1]), "")
    return table


def sharding_table(params: Any) -> Table:
    """A table of parameters with the mesh axes that cut each of their axes, and what a device has.

    Args:
      params: a tree of `jax.ShapeDtypeStruct` with their shardings.
    """
    leaves = paths(params)
    mesh = next(iter(leaves.values())).sharding.mesh
    sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    table = Table(title=f"Parameters on {mesh.size} devices: {sizes}", title_justify="left")
    table.add_column("parameter", overflow="fold")
    for column in ("shape", "cut by"):
        table.add_column(column)
    table.add_column("bytes per device", justify="right")
    total = 0
    for name, leaf in sorted(leaves.items()):
        cuts = [over if isinstance(over, tuple) else (over,) for over in leaf.sharding.spec]
        named = ["+".join(axis for axis in cut if axis) or "-" for cut in cuts]
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        total += size
        table.add_row(name, " x ".join(map(str, leaf.shape)), " x ".join(named), format_bytes(size))
    table.add_section()
    table.add_row("total", "", "", format_bytes(total))
    return table


def format_bytes(count: float) -> str:
    """`64 B`, `12.03 KiB`, `1,024.00 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.2f} {unit}" if unit != "B" else f"{count:.0f} B"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Rate(NamedTuple):
    """How fast training goes, a second."""

    tokens: float
    steps: float


class ProgressLine:
    """Step, loss, tokens/s and time left: a line that renews itself on a terminal, and elsewhere
    a plain line every few seconds."""

    def __init__(self, console: Console, step: int, steps: int):
        self._console = console
        self._steps = steps
        self._last_plain = 0.0
        self._tokens = 0
        self._timed_steps = 0
        self._seconds = 0.0
        self._mark: float | None = None
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(BarColumn(20), TextColumn("{task.description}"), console=console)
            self._task = self._bar.add_task(f"step {step}/{steps}  compiling", total=steps)
            self._bar.update(self._task, completed=step)
            self._bar.start()
        else:
            console.print(f"step {step}/{steps}  compiling")

    def pause(self) -> None:
        """What follows, until the next `update`, is not training: it does not count as its time."""
        self._mark = None

    def update(self, step: int, tokens: int, metrics: Mapping[str, float]) -> Rate | None:
        """Shows a finished step; returns the speed of the training so far, if it is known yet."""
        now = time.monotonic()
        if self._mark is not None:
            self._seconds += now - self._mark
            self._timed_steps += 1
            self._tokens += tokens
        self._mark = now
        text = f"step {step}/{self._steps}  loss {metrics['loss']:.3f}"
        rate = None
        if self._timed_steps:
            rate = Rate(self._tokens / self._seconds, self._timed_steps / self._seconds)
            left = (self._steps - step) / rate.steps
            text += f"  {rate.tokens:,.0f} tokens/s  {_duration(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif now - self._last_plain >= _PLAIN_LINE_SECONDS or step == self._steps:
            self._last_plain = now
            self._console.print(text)
        return rate

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """How much of `total` is done: a bar on a terminal, elsewhere a line every few seconds.

    Yields:
      A function that takes how many more are.
    """
    done = 0
    last_line = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        bar.advance(task, count)
        if not console.is_terminal and time.monotonic() - last_line >= _PLAIN_LINE_SECONDS:
            last_line = time.monotonic()
            console.print(f"{what}: {done:,} of {total:,}")

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield advance


def make_console() -> Console:
    """Standard output; a line stays one line where it is not a terminal. Of several processes the
    first one speaks."""
    return Console(
        file=sys.stdout,
        highlight=False,
        soft_wrap=not sys.stdout.isatty(),
        markup=False,
        quiet=not hosts.is_first(),
    )
