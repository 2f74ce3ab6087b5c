"""A run's parameters by layer, read from its checkpoint a few at a time.

Layers that repeat are one array there. What is asked for in the order of `shapes` is read once, and
no more at a time than the largest of these arrays.
"""

import math
from collections.abc import Iterator, Mapping
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
        self._run = run
        self._stored = stored = run.checkpoints.stored_params(run.step)
        self._batches = {name: batch for batch in _batches(stored) for name in batch}
        self._held: dict[str, np.ndarray] = {}

        def place(item: tuple[str, Origin]) -> tuple[int, str, int]:
            # Rows of an array one after the other; large ones first, while memory is in one piece.
            _, origin = item
            return -math.prod(stored[origin.name]), origin.name, origin.row or 0

        found = sorted(origins(stored, run.model).items(), key=place)
        self._origins = dict(found)
        self.shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for name, origin in found:
            shape = stored[origin.name][0 if origin.row is None else 1 :]
            kept = is_state_space(name, run.model)
            self.shapes[name] = shape, np.dtype(np.float32 if kept else dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        origin = self._origins[name]
        if origin.name not in self._held:
            self._held = {}  # Not two batches at once.
            self._held = self._read(self._batches[origin.name])
        array = self._held[origin.name]
        # A row is copied: it would keep all of them in memory.
        array = array if origin.row is None else array[origin.row].copy()
        return array.astype(self.shapes[name][1], copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _read(self, names: list[str]) -> dict[str, np.ndarray]:
        """Arrays of the model as the checkpoint has them, on the host."""
        places = {
            tuple(name.split("/")): np.broadcast_to(np.zeros((), np.float32), self._stored[name])
            for name in names
        }
        return paths(self._run.checkpoints.restore_params(unflatten_dict(places), self._run.step))


def _batches(stored: Mapping[str, tuple[int, ...]]) -> list[list[str]]:
    """Names of arrays that are read at once: the largest by itself, small ones together."""
    batches: list[list[str]] = [[]]
    most, used = max(map(math.prod, stored.values())) // 4, 0
    for name in sorted(stored, key=lambda name: (-math.prod(stored[name]), name)):
        size = math.prod(stored[name])
        if batches[-1] and used + size > most:
            batches.append([])
            used = 0
        batches[-1].append(name)
        used += size
    return batches


def is_state_space(name: str, config: ModelConfig) -> bool:
    """Whether a parameter, by the name of its layer, is of a state space."""
    parts = name.split("/")
    if len(parts) < 5 or parts[1] != "layers" or parts[3] not in ("global_mixer", "local_mixer"):
        return False
    spec = [*getattr(config, parts[0]).layer_specs][int(parts[2])]
    return isinstance(config.mixers[spec.mixers[0 if parts[3] == "global_mixer" else -1]], S4)
