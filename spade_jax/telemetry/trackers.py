"""Where else a run's numbers go: Weights & Biases or MLflow, by their own libraries.

Where they send them, and as whom, their own environment variables say.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from spade_jax.config import RunError, require
from spade_jax.files import atomic_write
from spade_jax.stored import read_json

# What the workdir keeps, so that a run that goes on is the same one there.
_KEPT = {"tracker": str, "id": str}


class Tracker(Protocol):
    """Takes numbers, step by step."""

    # What finds the run again.
    id: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _Wandb:
    def __init__(self, library: Any, name: str, before: str | None, folder: Path, settings: Any):
        self._run = library.init(
            name=name, id=before, resume="allow", dir=str(folder), config=settings
        )
        self.id = self._run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, library: Any, name: str, before: str | None, folder: Path, settings: Any):
        self._library = library
        self._run = library.start_run(run_id=before, run_name=None if before else name)
        library.log_dict(settings, "config.json")
        self.id = self._run.info.run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._library.log_metrics(values, step=step)

    def close(self) -> None:
        self._library.end_run()


_KINDS: Mapping[str, Callable[..., Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow}


def check_tracker(name: str | None) -> None:
    """Raises ConfigError for one whose library is not installed."""
    require(
        name is None or importlib.util.find_spec(name) is not None,
        "train.tracker",
        name,
        f"must be installed: python -m pip install {name}",
    )


def open_tracker(name: str, workdir: Path, settings: Mapping[str, Any]) -> Tracker:
    """The tracker of a run, which goes on there if it has been there before.

    Args:
      name: "wandb" or "mlflow".
      settings: the run's, as nested dicts.

    Raises:
      RunError: it cannot be reached, or refuses.
    """
    path = workdir / "tracker.json"
    advice = "delete it, and the tracker has a new run"
    kept = read_json(path, _KEPT, advice=advice, error=RunError)
    before = kept["id"] if kept is not None and kept["tracker"] == name else None
    plain = json.loads(json.dumps(settings))
    try:
        tracker = _KINDS[name](importlib.import_module(name), workdir.name, before, workdir, plain)
    except Exception as error:  # Of their own kinds, and of what they are made of.
        reason = " ".join(str(error).split())
        raise RunError(
            f"train.tracker = {name!r}: cannot be used ({type(error).__name__}: {reason}); "
            "train.tracker=None goes on without it"
        ) from None
    with atomic_write(path) as partial:
        partial.write_text(json.dumps({"tracker": name, "id": tracker.id}) + "\n")
    return tracker
