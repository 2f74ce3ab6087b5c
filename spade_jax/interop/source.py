"""A run's parameters by layer, read from its checkpoint one array at a time.

What is asked for in the order of `shapes` is read once: at most the largest array of the model,
with all layers that repeat, and one layer of it are in memory.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from spade_jax.config import ModelConfig
from spade_jax.interop.names import Origin, origins
from spade_jax.mixers import S4
from spade_jax.runs.open import Run
from spade_jax.trees import paths


class Source(Mapping[str, np.ndarray]):
    """Arrays by the names of their layers.

    Attributes:
      shapes: shape and dtype of each.
    """

    def __init__(self, run: Run, dtype: Any = np.float32):
        """dtype: of all but the state space's, which stay float32.

        Raises:
          CheckpointError: the checkpoint is damaged.
        """
        self._run, self._held = run, ("", np.zeros(()))
        stored = run.checkpoints.stored_params(run.step)
        # Rows of an array one after the other.
        found = sorted(origins(stored, run.model).items(), key=lambda item: _place(item[1]))
        self._origins = dict(found)
        self.shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for name, origin in found:
            shape = stored[origin.name][0 if origin.row is None else 1 :]
            kept = is_state_space(name, run.model)
            self.shapes[name] = shape, np.dtype(np.float32 if kept else dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        origin = self._origins[name]
        if self._held[0] != origin.name:
            self._held = "", np.zeros(())  # Not two of them at once.
            self._held = origin.name, self._read(origin.name)
        array = self._held[1] if origin.row is None else self._held[1][origin.row]
        return array.astype(self.shapes[name][1])

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _read(self, name: str) -> np.ndarray:
        """An array of the model as the checkpoint has it, on the host."""
        shape = self._run.checkpoints.stored_params(self._run.step)[name]
        place = np.broadcast_to(np.zeros((), np.float32), shape)
        tree = unflatten_dict({tuple(name.split("/")): place})
        return np.asarray(paths(self._run.checkpoints.restore_params(tree, self._run.step))[name])


def is_state_space(name: str, config: ModelConfig) -> bool:
    """Whether a parameter, by the name of its layer, is of a state space."""
    parts = name.split("/")
    if len(parts) < 5 or parts[1] != "layers" or parts[3] not in ("global_mixer", "local_mixer"):
        return False
    spec = [*getattr(config, parts[0]).layer_specs][int(parts[2])]
    return isinstance(config.mixers[spec.mixers[0 if parts[3] == "global_mixer" else -1]], S4)


def _place(origin: Origin) -> tuple[str, int]:
    return origin.name, origin.row or 0
