"""Checkpoints: all positions of a run in one directory per step, written in the background.

A step's directory appears under its name only when all of it is on the disk; what is in it, and
whether it is whole, says `checkpoint_files`.
"""

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from spade_jax import hosts
from spade_jax.runs.checkpoint_files import (
    ABOUT,
    CHECKSUMS,
    POSITION,
    STATE,
    CheckpointError,
    checksums,
    first_line,
    is_step,
    problem_of,
    read_about,
    require_step,
    steps_in,
)
from spade_jax.stored import Shape
from spade_jax.trees import paths


class State(Protocol):
    """What a checkpoint holds of the training: arrays in nested dicts and tuples."""

    @property
    def step(self) -> Any:
        """Updates done."""

    @property
    def params(self) -> Any:
        """Nested dicts of the model's parameters."""


AnyState = TypeVar("AnyState", bound=State)


class Checkpoints:
    """The checkpoints of one run.

    Nothing is created or changed before the first `restore` or `save`.

    Attributes:
      directory: where they lie.
      newest: step of the newest one whose checksums are right, or None.
      damaged: what is wrong with each newer one, by step.
    """

    def __init__(self, directory: Path, keep: int, *, alone: bool = False):
        """Looks at what is there, newest first.

        Args:
          alone: of several processes this one reads and writes by itself, arrays on the host.

        Raises:
          CheckpointError: there are checkpoints, but none can be read; or a file instead of them.
        """
        self.directory = directory
        self._alone = alone
        self._problems: dict[int, str | None] = {}
        self._retention = _NewestAndBest(keep)
        self._open_manager: ocp.CheckpointManager | None = None
        self.newest: int | None = None
        self.damaged: dict[int, str] = {}
        self._found = sorted(steps_in(directory), reverse=True)
        for step in self._found:
            problem = self.problem(step)
            if problem is None:
                self.newest = step
                break
            self.damaged[step] = problem
        if self.damaged and self.newest is None:
            raise CheckpointError(
                f"{directory}: none of the checkpoints can be read (the newest: "
                f"{self.damaged[max(self.damaged)]}); put back a whole copy of one, or start "
                "again in another workdir"
            )

    def problem(self, step: int) -> str | None:
        """Why the checkpoint of a step cannot be used, or None; its files are read once."""
        if step not in self._problems:
            self._problems[step] = problem_of(self._path(step))
        return self._problems[step]

    def require_unchanged(self) -> None:
        """Raises CheckpointError where another run has come or gone since these were looked at."""
        if sorted(steps_in(self.directory), reverse=True) != self._found:
            raise CheckpointError(
                f"{self.directory}: another run has changed these meanwhile; start again"
            )

    def about(self, settings: Shape = dict) -> dict[str, Any]:
        """What the newest readable checkpoint says about its run.

        Args:
          settings: what the configuration in it must be like.

        Raises:
          CheckpointError: it is not.
        """
        return read_about(self._path(self.newest), settings)

    def scores(self) -> dict[int, float]:
        """Values of the run's best_metric by step, as far as the newest readable one knows."""
        scores = self.about().get("scores", {})
        return {int(step): value for step, value in scores.items() if is_step(step)}

    def restore(self, shapes: AnyState) -> tuple[AnyState, bytes]:
        """The newest readable train state, laid out as `shapes` say, and the data's position.

        Damaged newer checkpoints are moved to the directory `damaged` beside `directory`.

        Raises:
          CheckpointError: it holds another model's parameters.
        """
        for step in self.damaged if hosts.is_first() else ():
            aside = self.directory.parent / "damaged" / str(step)
            while aside.exists():
                aside = aside.with_name(aside.name + "_")
            aside.parent.mkdir(exist_ok=True)
            shutil.move(self._path(step), aside)
        path = self._path(self.newest)
        with _read_errors(path):
            try:
                state = self._manager.restore(
                    self.newest, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
                )[STATE]
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{path}: does not fit this model ({first_line(error)})"
                ) from error
        require_step(path, int(state.step))
        own, first = path / POSITION / _data_name(), path / POSITION / "data_0.bin"
        return state, (own if own.exists() else first).read_bytes()

    def stored_params(self, step: int) -> dict[str, tuple[int, ...]]:
        """Paths and shapes of the parameters in a train state.

        Raises:
          CheckpointError: it is damaged, or not there.
        """
        if (problem := self.problem(step)) is not None:
            raise CheckpointError(problem)
        path = self._path(step)
        with _read_errors(path), self._reader() as reader:
            metadata = reader.metadata((path / STATE).absolute())
            stored = paths(metadata.item_metadata.tree["params"])
            return {name: tuple(leaf.shape) for name, leaf in stored.items()}

    def restore_params(self, shapes: Any, step: int | None = None) -> Any:
        """The parameters alone of a train state, laid out as `shapes` say.

        Args:
          shapes: all of the model's parameters, or some.
          step: which one; None is the newest readable one.

        Raises:
          CheckpointError: there is none, it is damaged, or holds another model's parameters.
        """
        step = self.newest if step is None else step
        if step is None:
            raise CheckpointError(f"{self.directory}: holds no checkpoint")
        path = self._path(step)
        stored = self.stored_params(step)
        # Orbax would begin to read, and fail on the way.
        for name, shape in paths(shapes).items():
            if stored.get(name) != shape.shape:
                found = stored.get(name, "not there")
                raise CheckpointError(
                    f"{path}: does not fit this model (parameter {name}: {found}, must be "
                    f"{shape.shape})"
                )
        item = {"params": shapes, "step": np.zeros((), np.int32)}
        arguments = ocp.args.PyTreeRestore(
            item=item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        with _read_errors(path), self._reader() as reader:
            state = reader.restore((path / STATE).absolute(), args=arguments)
        require_step(path, int(state["step"]))
        return state["params"]

    def save(
        self,
        step: int,
        state: State,
        get_data_position: Callable[[], bytes],
        about: Mapping[str, Any],
        best: int | None = None,
    ) -> None:
        """Begins to save; `state` may be donated when this returns.

        Args:
          best: a step that stays, however old it is.

        Raises:
          CheckpointError: this one cannot be begun, or the one before could not be finished.
        """
        _drop_late_reports()
        try:
            position = _PositionSave(get_data_position(), {**about, "step": step})
            self._problems.pop(step, None)
            self._retention.best = best
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), position=position),
            )
        except Exception as error:
            raise self._save_error(error) from error

    def wait(self) -> None:
        """Returns when what was begun is on the disk.

        Raises:
          CheckpointError: it could not be finished.
        """
        try:
            if self._open_manager is not None:
                self._open_manager.wait_until_finished()
        except Exception as error:
            raise self._save_error(error) from error
        steps = self._open_manager.all_steps() if self._open_manager is not None else []
        self.newest = max(steps, default=self.newest)

    def close(self) -> None:
        """Releases the background threads."""
        if self._open_manager is not None:
            self._open_manager.close()

    def _reader(self) -> ocp.Checkpointer:
        who = self._processes()
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=who)
        return ocp.Checkpointer(handler, multiprocessing_options=who)

    def _processes(self) -> ocp.options.MultiprocessingOptions:
        """Who takes part in what is read and written."""
        if not self._alone or jax.process_count() == 1:
            return ocp.options.MultiprocessingOptions()
        me = jax.process_index()
        return ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone_{me}"
        )

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._open_manager is None:
            self._open_manager = ocp.CheckpointManager(
                self.directory.absolute(),
                item_handlers={
                    STATE: ocp.StandardCheckpointHandler(multiprocessing_options=self._processes()),
                    # The last one: it sums up the files of those before.
                    POSITION: _PositionHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    multiprocessing_options=self._processes(),
                    preservation_policy=self._retention,
                    cleanup_tmp_directories=True,
                ),
            )
        return self._open_manager

    def _path(self, step: int | None) -> Path:
        return self.directory / str(step)

    def _save_error(self, error: Exception) -> CheckpointError:
        steps = steps_in(self.directory)
        last = f"the last good one is step {max(steps)}" if steps else "there is none before"
        return CheckpointError(
            f"{self.directory}: a checkpoint could not be saved ({first_line(error)}); {last}"
        )


def _drop_late_reports() -> None:
    """When one write of a checkpoint fails, Orbax gives up the loop that the others report to, and
    each would then print a traceback of that. The failure itself is raised by `wait`."""
    before = sys.unraisablehook
    if getattr(before, "drops_late_reports", False):
        return

    def hook(report: Any) -> None:
        if not (
            isinstance(report.exc_value, RuntimeError)
            and str(report.exc_value) == "Event loop is closed"
        ):
            before(report)

    hook.drops_late_reports = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _data_name() -> str:
    return f"data_{jax.process_index()}.bin"


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """What Orbax says of files that it cannot read, as one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)})") from error


@dataclasses.dataclass
class _NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Which checkpoints stay: the newest, and the best one."""

    keep: int
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        first_new = len(checkpoints) - self.keep
        return [i >= first_new or c.step == self.best for i, c in enumerate(checkpoints)]


class _PositionHandler(ocp.AsyncCheckpointHandler):
    """Writes the small files beside the train state, the checksums last."""

    async def async_save(self, directory: epath.Path, args: "_PositionSave") -> list:
        async def write() -> None:
            path = Path(directory)
            (path / _data_name()).write_bytes(args.data)
            if jax.process_index() == 0:
                (path / ABOUT).write_text(json.dumps(args.about))

        # The directory itself is made in the background; the future waits for it.
        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="position")]

    def save(self, directory: epath.Path, args: "_PositionSave") -> None:
        raise NotImplementedError("positions are saved with a train state, asynchronously")

    def restore(self, directory: epath.Path, args: Any = None) -> None:
        raise NotImplementedError("positions are read as files")

    def finalize(self, directory: epath.Path) -> None:
        path = Path(directory)
        (path / CHECKSUMS).write_text(json.dumps(checksums(path.parent)))


@ocp.args.register_with_handler(_PositionHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _PositionSave(ocp.args.CheckpointArgs):
    data: bytes
    about: dict[str, Any]
