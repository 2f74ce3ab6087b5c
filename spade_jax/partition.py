"""Where arrays lie on a mesh: the names of their axes, and one table of rules.

A strategy is the sizes of the mesh's axes: one of size 1 spreads nothing.

    data      copies of the parameters, each with rows of its own
    fsdp      parameters and optimiser slots in pieces, put together where they are used; rows too
    tensor    heads, feed-forward features, features of the state space, and the vocabulary
    sequence  the length of sequences
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from spade_jax.config import ConfigError, nearest

AnyMesh = Mesh | AbstractMesh

MESH_AXES = ("data", "fsdp", "tensor", "sequence")

# The mesh axes that spread a named axis; none: every device has all of it.
RULES: dict[str, tuple[str, ...]] = {
    # Of activations.
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    # Of both.
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "ssm_features": ("tensor",),
    # Of activations: features of the state space while it runs, in exchange for rows.
    "ssm_own_features": ("tensor", "fsdp"),
    # Of parameters.
    "embed": ("fsdp",),
    "head_dim": (),
    "query_and_key": (),
    "band": (),
    "classes": (),
    "positions": (),
    "buckets": (),
    "norm": (),
    "ssm_copies": (),
    "ssm_state": (),
    "ssm_directions": (),
    "complex": (),
}


def partition_spec(axes: Sequence[str | None]) -> PartitionSpec:
    """Where an array with these axes lies; None names one that is never spread.

    Raises:
      ConfigError: a name that the table lacks.
    """
    spec: list[Any] = []
    used: set[str] = set()
    for axis in axes:
        if axis is not None and axis not in RULES:
            raise ConfigError(f"axis {axis!r}: has no rule{nearest(axis, RULES)}")
        # A mesh axis can spread one axis of an array only.
        over = tuple(name for name in RULES[axis] if name not in used) if axis else ()
        used |= {*over}
        spec.append(over if len(over) > 1 else over[0] if over else None)
    return PartitionSpec(*spec)


def shards(axis: str, mesh: AnyMesh) -> int:
    """In how many pieces a named axis is cut."""
    return math.prod(mesh.shape[name] for name in RULES[axis])


_device: contextvars.ContextVar[Any] = contextvars.ContextVar("device", default=None)


@contextlib.contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """What is traced within is for this mesh, whose devices need not be here."""
    before = _device.set(mesh.devices.flat[0])
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield
    finally:
        _device.reset(before)


def platform() -> str:
    """ "cpu", "gpu" or "tpu": what the computation at hand is for."""
    device = _device.get()
    return jax.default_backend() if device is None else device.platform


def device_kind() -> str:
    """What the devices are that the computation at hand is for, such as "TPU v5 lite"."""
    return (_device.get() or jax.devices()[0]).device_kind


def ambient_mesh() -> AbstractMesh | None:
    """The mesh that the computation at hand is for; None: one device, or none that is known."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 or {*mesh.axis_names} != {*MESH_AXES} else mesh


def sequence_shards() -> int:
    """In how many pieces the ambient mesh cuts sequences."""
    mesh = ambient_mesh()
    return 1 if mesh is None else shards("length", mesh)


def sharded_axes(
    axes: Sequence[str | None], shape: Sequence[int], unit: int = 1
) -> tuple[str | None, ...]:
    """The axes, with None for those that the ambient mesh does not cut, or not evenly.

    Args:
      unit: pieces of "length" must be whole numbers of so many tokens.
    """
    mesh = ambient_mesh()

    def cut(axis: str | None, length: int) -> bool:
        if mesh is None or axis is None or shards(axis, mesh) == 1:
            return False
        return length % (shards(axis, mesh) * (unit if axis == "length" else 1)) == 0

    return tuple(
        axis if cut(axis, length) else None for axis, length in zip(axes, shape, strict=True)
    )


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """x, laid out on the ambient mesh by the names of its axes, as far as these divide."""
    if ambient_mesh() is None:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(sharded_axes(axes, x.shape)))


def gathered(parameter: jax.Array, *axes: str | None) -> jax.Array:
    """A parameter put together from the pieces that fsdp keeps of it; other axes stay cut.

    Said before a matmul, in its dtype: left to itself, the compiler cuts the matmul into as many
    small ones as there are pieces, sends these round, and loses more by it than it hides.
    """
    return constrain(
        parameter, *(None if axis is not None and "fsdp" in RULES[axis] else axis for axis in axes)
    )


def exchange(x: jax.Array, split: int, concat: int) -> jax.Array:
    """Inside `on_each_device`: cuts an axis of x along fsdp, and puts another one together that was
    cut. Said with the two the other way round, that undone.

    Pieces are put in front before they are sent, and stay there until they have come: a TPU would
    otherwise copy them to the front, back and to their place.
    """
    count = jax.lax.axis_size("fsdp")
    x = x.reshape(*x.shape[:split], count, -1, *x.shape[split + 1 :])
    x = jax.lax.all_to_all(jnp.moveaxis(x, split, 0), "fsdp", 0, 0, tiled=True)
    return jax.lax.collapse(jnp.moveaxis(x, 0, concat), concat, concat + 2)


def all_rows(x: jax.Array) -> jax.Array:
    """Inside `on_each_device`: x with the rows of all that share pieces of parameters."""
    return jax.lax.all_gather(x, "fsdp", tiled=True)


def on_each_device(
    function: Callable[..., Any],
    in_axes: Sequence[Sequence[str | None]],
    out_axes: Sequence[str | None],
) -> Callable[..., Any]:
    """`function` of the pieces that each device of the ambient mesh has, laid out by axes; without
    such a mesh, the function itself.

    Args:
      in_axes: of each argument; a tree of arrays has those of its leaves' first axes.
      out_axes: of the one result.
    """
    if ambient_mesh() is None:
        return function
    return jax.shard_map(
        function,
        in_specs=tuple(map(partition_spec, in_axes)),
        out_specs=partition_spec(out_axes),
        # The check would have every loop inside, and every gradient, speak of the mesh.
        check_vma=False,
    )


def global_indices(axis: str | None, count: int) -> jax.Array:
    """Inside `on_each_device`: where the `count` entries of a device's piece lie in the whole of a
    named axis, int32 [count]. None names one that is not cut."""
    own = jnp.arange(count, dtype=jnp.int32)
    return own if axis is None else own + count * jax.lax.axis_index(RULES[axis])


def from_shard_before(x: jax.Array, distance: int = 1) -> jax.Array:
    """Inside `on_each_device`: x of the shard so many places to the left in the sequence (to the
    right where negative); zeros where there is none."""
    count = jax.lax.axis_size("sequence")
    if distance == 0:
        return x
    pairs = [(i, i + distance) for i in range(count) if 0 <= i + distance < count]
    return jax.lax.ppermute(x, "sequence", pairs)
