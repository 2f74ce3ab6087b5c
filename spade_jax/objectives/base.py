"""What training, evaluation, compilation and benchmarks know of what is learned.

An objective is called with a model and a batch, or a part of one, and gives sums: whoever adds them
up may cut batches as it likes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp

from spade_jax import partition
from spade_jax.config import require
from spade_jax.objectives.batch import Batch


class Sums(Protocol):
    """A NamedTuple of scalars that add up: those of two parts of a batch are those of both."""

    @classmethod
    def zeros(cls) -> Self:
        """Of nothing."""
        ...

    @property
    def minimised(self) -> jax.Array:
        """Float32: the sum whose gradient an update follows."""
        ...

    @property
    def divisor(self) -> jax.Array:
        """Int32: how many things the sums are over, such as target tokens."""
        ...

    def means(self) -> dict[str, jax.Array]:
        """What is told of an update by name, "loss" among it, as means."""
        ...


class Objective(Protocol):
    """What is learned from batches; classes that inherit from this have what can be left out.

    Attributes:
      batch: the definition of its batches.
      sums: what calls give.
      model: the class of the configurations of the models that it trains.
      parts: what of an update can be compiled alone, by name: each (model, batch, key) -> a scalar,
        whose gradient that is.
    """

    batch: ClassVar[type[Batch]]
    sums: ClassVar[type[Sums]]
    model: ClassVar[type]
    parts: ClassVar[Mapping[str, Callable[[Any, Any, jax.Array], jax.Array]]] = {}

    def __call__(self, model: Any, batch: Any, key: jax.Array | None) -> Any:
        """`sums` of what an update minimises, of arrays that the ambient mesh has shared out.

        Args:
          batch: of the class `batch`; it is filled up here where the mesh cannot cut it.
          key: of dropout; None drops nothing.
        """
        ...

    def measure(self, model: Any, batch: Any) -> Any:
        """`sums` of what is held out: without dropout, and what else only serves training."""
        ...

    def metrics(self, sums: Sequence[Any], text_bytes: float) -> dict[str, float]:
        """What an evaluation is worth, "loss" among it.

        Args:
          sums: of all its batches, as `measure` gives them; read here from the devices.
          text_bytes: of all its batches.
        """
        ...

    def text_bytes(self, batch: Any) -> float:
        """Bytes of the text that a batch of numpy arrays would have predicted; 0: it is no text."""
        return 0.0

    def flops(self, config: Any, rows: int, lengths: Sequence[int]) -> float:
        """Floating-point operations of matmuls in an update, nothing twice for rematerialisation,
        and of attention the pairs that are seen.

        Args:
          config: the model's.
          rows: of a batch.
          lengths: of the batch's sequences.
        """
        ...

    def check(self, config: Any, lengths: Sequence[int], mesh: partition.AnyMesh) -> None:
        """Raises ConfigError where it does not train this model on such batches on the mesh.

        Arguments are as of `flops`.
        """
        require(
            isinstance(config, self.model),
            "model",
            type(config).__name__,
            f"must be of {self.model.__name__}, which is what {type(self).__name__} trains",
        )


def batch_digest(arrays: Mapping[str, Any]) -> jax.Array:
    """Equal for equal batches, however their rows lie on devices and processes: uint32.

    A sum over hashes of the bits of each number with its place (the finaliser of MurmurHash3), so
    that no row moves.
    """

    def mixed(x: jax.Array) -> jax.Array:
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return x ^ (x >> 16)

    total = jnp.uint32(0)
    for number, (_, array) in enumerate(sorted(arrays.items())):
        array = array.reshape(array.shape[0], -1)
        rows = jnp.arange(array.shape[0], dtype=jnp.uint32)[:, None]
        columns = jnp.arange(array.shape[1], dtype=jnp.uint32)[None]
        places = mixed(rows * array.shape[1] + columns + number * jnp.uint32(0x9E3779B9))
        total += jnp.sum(mixed(places ^ _bits(array)), dtype=jnp.uint32)
    return total


def _bits(array: jax.Array) -> jax.Array:
    """Uint32: integers as they are, and of floats their bits."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(array.astype(jnp.float32), jnp.uint32)
    return array.astype(jnp.uint32)
