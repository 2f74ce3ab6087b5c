"""The parameters that a run begins with, out of another run's checkpoint."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from flax.traverse_util import flatten_dict, unflatten_dict
from rich.console import Console
from rich.table import Table

from spade_jax.config import ModelConfig, require
from spade_jax.runs.checkpoints import CheckpointError
from spade_jax.runs.open import Run
from spade_jax.training.step import Trainer, TrainState
from spade_jax.trees import paths


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of each parameter, by path.

    Attributes:
      loaded: taken from the checkpoint, with their shapes.
      skipped: the checkpoint's alone.
      new: the model's alone.
    """

    loaded: dict[str, tuple[int, ...]]
    skipped: dict[str, tuple[int, ...]]
    new: dict[str, tuple[int, ...]]

    def table(self) -> Table | None:
        """What does not begin as in the checkpoint; None if all does."""
        if not self.skipped and not self.new:
            return None
        table = Table(title="Other parameters", title_justify="left")
        for column in ("parameter", "shape", "begins"):
            table.add_column(column)
        for shapes, word in (
            (self.skipped, "skipped: not in this model"),
            (self.new, "at random: not in the checkpoint"),
        ):
            for name, shape in sorted(shapes.items()):
                table.add_row(name, " x ".join(map(str, shape)), word)
        return table


def plan(start: Run, shapes: Any, new_parameters: Sequence[str]) -> Plan:
    """Compares a checkpoint with the model's parameters.

    Args:
      shapes: the model's, as nested dicts.
      new_parameters: regular expressions of those that may be missing.

    Raises:
      CheckpointError: one is missing, or has another shape.
    """
    directory = start.checkpoints.directory
    stored = start.checkpoints.stored_params(start.step)
    wanted = {name: tuple(leaf.shape) for name, leaf in paths(shapes).items()}
    wrong = {n for n, shape in wanted.items() if n in stored and stored[n] != shape}
    missing = {
        name
        for name in wanted.keys() - stored.keys()
        if not any(re.fullmatch(pattern, name) for pattern in new_parameters)
    }
    for name in sorted(wrong):
        raise CheckpointError(
            f"{directory}: is of another model: parameter {name} is {stored[name]} there, and "
            f"must be {wanted[name]}"
        )
    if missing:
        raise CheckpointError(
            f"{directory}: is of another model: {len(missing)} of {len(wanted)} parameters are "
            f"not there, such as {min(missing)}; use that model's configuration (model = None), "
            "or name them in new_parameters"
        )
    return Plan(
        {name: shape for name, shape in wanted.items() if name in stored},
        {name: shape for name, shape in stored.items() if name not in wanted},
        {name: shape for name, shape in wanted.items() if name not in stored},
    )


def initial_state(
    start: Run, origin: Plan, shapes: Any, init: Callable[[], TrainState]
) -> TrainState:
    """A fresh train state with the parameters of a checkpoint, laid out as `shapes` say."""
    state = init()
    wanted = {
        path: leaf
        for path, leaf in flatten_dict(shapes).items()
        if "/".join(map(str, path)) in origin.loaded
    }
    loaded = start.checkpoints.restore_params(unflatten_dict(wanted), start.step)
    return state._replace(params=unflatten_dict(flatten_dict(state.params) | flatten_dict(loaded)))


def beginning_with(start: Run, origin: Plan, trainer: Trainer) -> Trainer:
    """The trainer, whose first state has the parameters of another run."""
    shapes, fresh = trainer.state_shapes.params, trainer.init
    return dataclasses.replace(trainer, init=lambda: initial_state(start, origin, shapes, fresh))


def tell(start: Run, origin: Plan, console: Console) -> None:
    """Says what the run begins with."""
    count = len(origin.loaded)
    whole = "" if (table := origin.table()) else ", all that this model has"
    console.print(
        f"Beginning with the parameters of {start.workdir}, {start.why}: {count} arrays{whole}."
    )
    if table is not None:
        console.print(table)


def check_vocabulary(start: Run, digest: str, setting: str, value: str | None) -> None:
    """Raises ConfigError for another vocabulary than that of the run which it begins with.

    Args:
      digest: of the vocabulary.
      setting: what named it, and value: how.
    """
    require(
        start.vocabulary_digest == digest,
        setting,
        value,
        f"is another vocabulary than that of {start.workdir}; must be the same, "
        f"{start.describe_vocabulary()}",
    )


def resolve_model(
    model: ModelConfig | None,
    start: Run | None,
    dropout_rate: float | None,
    dtype: Literal["float32", "bfloat16"] | None,
) -> ModelConfig:
    """The model of a configuration, or that of the run that it begins with where it is None.

    Args:
      dropout_rate, dtype: of the model; None leaves them as they are.
    """
    model = model or (start.model if start else None)
    assert model is not None  # One of the two is there, or the configuration is none.
    changes: dict[str, Any] = {"dropout_rate": dropout_rate, "dtype": dtype}
    return dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})
