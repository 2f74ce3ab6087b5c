"""One mesh of all devices, and where parameters, optimiser slots and batches lie on it.

Which axis of an array goes where is `partition.RULES`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spade_jax import partition
from spade_jax.config import ConfigError, require
from spade_jax.training.config import MeshConfig, TrainConfig

Tree = Any


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of the platform, or those given, as a grid with `partition.MESH_AXES`.

    Raises:
      ConfigError: the platform is not there, or the sizes do not multiply to the device count.
    """
    where = "here" if devices is None else "of the topology"
    try:
        if devices is None:
            devices = jax.devices(None if config.platform == "default" else config.platform)
    except RuntimeError as error:
        raise ConfigError(
            f"mesh.platform = {config.platform!r}: there is no such device here "
            f"({str(error).splitlines()[0]})"
        ) from None
    sizes = {name: getattr(config, name) for name in partition.MESH_AXES}
    asked = " x ".join(f"{name} {size}" for name, size in sizes.items())
    fixed = math.prod(size for size in sizes.values() if size != -1)
    for name, size in sizes.items():
        if size == -1:
            sizes[name] = max(1, len(devices) // fixed)
    require(
        math.prod(sizes.values()) == len(devices),
        "mesh",
        asked,
        f"must multiply to the {len(devices)} {devices[0].platform} device(s) {where}",
    )
    grid = _grid(tuple(sizes.values()), devices)
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _grid(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices such that neighbours along an axis are near one another.

    Slices of TPUs, and machines with GPUs, are joined by a slower network than the one within
    them. The outermost axes that can be cut among them are: data first, then fsdp.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    # An axis of a mesh may run along a part of a torus's axis: 16 x 16 on 4 x 8 x 8 chips.
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    left, among = slices, []
    for size in sizes:
        among.append(math.gcd(size, left))
        left //= among[-1]
    within = [size // part for size, part in zip(sizes, among, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(
        within, among, devices, allow_split_physical_axes=True
    )


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Raises ConfigError unless every device gets equally many sequences of a microbatch."""
    shards = partition.shards("batch", mesh)
    require(
        config.batch_size % (config.microbatches * shards) == 0,
        "train.batch_size",
        config.batch_size,
        f"must be a multiple of {config.microbatches} microbatches x {shards} shards of the batch, "
        f"mesh.data {mesh.shape['data']} x mesh.fsdp {mesh.shape['fsdp']}",
    )


def require_even_rows(batch_size: int, mesh: Mesh) -> None:
    """Raises ConfigError unless the option --batch_size gives every device equally many rows."""
    require(
        batch_size % mesh.size == 0,
        "--batch_size",
        batch_size,
        f"must be a multiple of the {mesh.size} devices",
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of every array [b, ...] of a batch."""
    return NamedSharding(mesh, partition.partition_spec(("batch",)))


@dataclasses.dataclass(frozen=True)
class DataShard:
    """Which rows of a batch a process brings.

    Attributes:
      index, count: which of how many equal parts of a batch.
      copies: how many processes bring the same one, for they share its devices' rows.
    """

    index: int
    count: int
    copies: int

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The process's part of the rows of a whole batch."""
        size = len(rows) // self.count
        return rows[self.index * size : (self.index + 1) * size]


def data_shard(mesh: Mesh) -> DataShard:
    """What this process brings, where each brings the rows of its own devices.

    Raises:
      ConfigError: processes whose rows are neither the same nor apart.
    """
    blocks = np.arange(partition.shards("batch", mesh)).reshape(mesh.devices.shape[:2])
    rows: dict[int, set[int]] = {}
    for place, device in np.ndenumerate(mesh.devices):
        rows.setdefault(device.process_index, set()).add(int(blocks[place[:2]]))
    parts = sorted({tuple(sorted(own)) for own in rows.values()})
    require(
        sum(map(len, parts)) == blocks.size and len({len(part) for part in parts}) == 1,
        "mesh",
        dict(mesh.shape),
        "must give processes the same rows of a batch or others: let mesh.tensor x mesh.sequence "
        "divide or be a multiple of a process's devices",
    )
    index = parts.index(tuple(sorted(rows[jax.process_index()])))
    return DataShard(index, len(parts), len(rows) // len(parts))


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
    names = (*[None] * (len(shape) - len(axes)), *axes)
    spec = partition.partition_spec(names)
    for axis, length, mesh_axis in zip(names, shape, spec):
        if mesh_axis is not None and length % mesh.shape[mesh_axis] != 0:
            raise ConfigError(
                f"mesh.{mesh_axis} = {mesh.shape[mesh_axis]}: must divide axis {axis!r} of "
                f"{path}, which is {length} long"
            )
    return spec


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
