"""One mesh of all devices, and where parameters, optimiser slots and batches lie on it."""

import math
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spade_jax.config import ConfigError, nearest, require
from spade_jax.training.config import MeshConfig, TrainConfig

Tree = Any

# Mesh axes over which a batch is spread.
BATCH_AXES = ("data", "fsdp")

# Where a logical axis of a parameter lies: the mesh axis that spreads it, or None for replicated.
PARAMETER_AXES: dict[str, str | None] = {
    "embed": "fsdp",
    "vocab": None,
    "positions": None,
    "heads": None,
    "buckets": None,
    "mlp": None,
    "norm": None,
    "ssm_copies": None,
    "ssm_features": None,
    "ssm_state": None,
    "ssm_directions": None,
    "complex": None,
}


def make_mesh(config: MeshConfig) -> Mesh:
    """All devices of the platform as a `data` by `fsdp` grid.

    Raises:
      ConfigError: the platform is not there, or the sizes do not multiply to the device count.
    """
    try:
        devices = jax.devices(None if config.platform == "default" else config.platform)
    except RuntimeError as error:
        raise ConfigError(
            f"mesh.platform = {config.platform!r}: there is no such device here "
            f"({str(error).splitlines()[0]})"
        ) from None
    sizes = {"data": config.data, "fsdp": config.fsdp}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    for name, size in sizes.items():
        if size == -1:
            sizes[name] = max(1, len(devices) // fixed)
    require(
        math.prod(sizes.values()) == len(devices),
        "mesh",
        f"data {config.data} x fsdp {config.fsdp}",
        f"must multiply to the {len(devices)} {devices[0].platform} device(s) here",
    )
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Raises ConfigError unless every device gets equally many sequences of a microbatch."""
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    require(
        config.batch_size % (config.microbatches * shards) == 0,
        "train.batch_size",
        config.batch_size,
        f"must be a multiple of {config.microbatches} microbatches x {shards} devices",
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of every array [b, ...] of a batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The batch on the devices; each process gives the rows of its own ones."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def parameter_spec(
    path: str, shape: tuple[int, ...], axes: tuple[str, ...], mesh: Mesh
) -> PartitionSpec:
    """Where one parameter lies. A stack of layers has one leading axis that `axes` does not name.

    Raises:
      ConfigError: an axis that the table lacks, or a length that the mesh axis does not divide.
    """
    spec: list[str | None] = [None] * (len(shape) - len(axes))
    for axis, length in zip(axes, shape[len(spec) :]):
        if axis not in PARAMETER_AXES:
            raise ConfigError(f"parameter {path}: axis {axis!r}{nearest(axis, PARAMETER_AXES)}")
        mesh_axis = PARAMETER_AXES[axis]
        if mesh_axis in spec:  # A mesh axis can spread one axis of an array only.
            mesh_axis = None
        if mesh_axis is not None and length % mesh.shape[mesh_axis] != 0:
            raise ConfigError(
                f"mesh.{mesh_axis} = {mesh.shape[mesh_axis]}: must divide axis {axis!r} of "
                f"{path}, which is {length} long"
            )
        spec.append(mesh_axis)
    return PartitionSpec(*spec)


def slot_spec(
    slot: tuple[int, ...], parameter: tuple[int, ...], spec: PartitionSpec
) -> PartitionSpec:
    """Where an optimiser slot lies: with its parameter, less the axis that it is reduced over.

    Adam's moments have the parameter's shape, Adafactor's rows and columns lack one of its axes.
    What has neither shape is a placeholder, and replicated.
    """
    if slot == parameter:
        return spec
    for axis in range(len(parameter)):
        if slot == parameter[:axis] + parameter[axis + 1 :]:
            return PartitionSpec(*spec[:axis], *spec[axis + 1 :])
    return PartitionSpec()


def optimizer_shardings(
    optimizer: optax.GradientTransformation, slots: Tree, parameters: Tree, shardings: Tree
) -> Tree:
    """Shardings of the optimiser state `slots` of `parameters`, which lie as `shardings` say."""
    mesh = jax.tree.leaves(shardings)[0].mesh
    return optax.tree.map_params(
        optimizer,
        lambda slot, parameter, sharding: NamedSharding(
            mesh, slot_spec(slot.shape, parameter.shape, sharding.spec)
        ),
        slots,
        parameters,
        shardings,
        transform_non_params=lambda _: replicated(mesh),
    )
