"""What all ways to batches have in common: the rows of a host, and what is refused."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spade_jax.config import require
from spade_jax.data.config import DataError

# A batch by the names of its arrays, which `objectives` defines.
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HostRows:
    """Which rows of the batches of all hosts are this host's.

    Attributes:
      batch_size: how many.
      shard_index, num_shards: which of how many hosts this is.
    """

    batch_size: int
    shard_index: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        require(self.batch_size > 0, "batch_size", self.batch_size, "must be at least 1")
        require(self.num_shards > 0, "num_shards", self.num_shards, "must be at least 1")
        require(
            0 <= self.shard_index < self.num_shards,
            "shard_index",
            self.shard_index,
            f"must be at least 0 and below num_shards = {self.num_shards}",
        )

    @property
    def batch_of_all_hosts(self) -> int:
        return self.batch_size * self.num_shards

    @property
    def rows(self) -> slice:
        first = self.shard_index * self.batch_size
        return slice(first, first + self.batch_size)

    def of(self, values: np.ndarray) -> np.ndarray:
        """This host's rows of an array of a batch, zeros where examples have run out."""
        missing = self.batch_of_all_hosts - len(values)
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))[self.rows]


def require_a_batch(where: str, examples: int, what: str, batch_size: int, advice: str) -> None:
    """Raises DataError where there are fewer examples than a batch has.

    Args:
      where: the setting, and its value.
      what: they are: "training examples in an epoch".
      advice: what to do about it.
    """
    if examples < batch_size:
        raise DataError(
            f"{where}: {examples} {what}, but a batch of {batch_size}; must have at least one "
            f"batch: {advice}"
        )


# What to do about too little text for a batch.
MORE_TEXT = "add text, or lower the batch size or data.input_length"


def read_position(
    state: bytes, definition: Mapping[str, Any], words: str, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """A position that is a step, as some bytes of JSON have it, among other things.

    Args:
      definition: what tells the data from others, which must be there as it is.
      words: what is said of bytes that are no position: of what, and of what they must be.
      needed: what else must be there.

    Raises:
      DataError: they are none, or one of other data.
    """
    try:
        position = json.loads(state)
        step = position["step"]
        if type(step) is not int or not 0 <= step < 2**63 or not set(needed) <= position.keys():
            raise ValueError(step)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"position in the data: {len(state)} bytes that are no position {words}"
        ) from None
    require_same_data(position, definition)
    return position


def require_same_data(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises DataError where a position in the data was saved with other data than there is now."""
    for name, value in now.items():
        if saved.get(name) != value:
            raise DataError(
                f"position in the data: was saved with {name} = {saved.get(name)!r}, but this run "
                f"has {value!r}; must be the same"
            )
