"""How long collectives take at the speed of the links between chips.

The model is one of bandwidth alone: no latency, and nobody else on the links. n devices that each
have V bytes (of an all-gather, get V), and can send B bytes/s along the axes of the slice that
their group runs over, take

    all-gather, reduce-scatter    V (n - 1) / n / B
    all-reduce                    2 V (n - 1) / n / B
    all-to-all                    V n / 4 / B
    collective-permute            V / link, each to a neighbour
    between slices                V / network

B has one link for each such axis of the slice, and twice that where the group closes it to a ring.
The numbers are those of `topology.CHIPS`. How much of that time the computations hide is not known:
a step takes at least the longer of the two, and at most both, one after the other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spade_jax.aot.hlo import SLICES, Collective
from spade_jax.aot.topology import Chip, Topology


class Links:
    """The links of a slice, as a mesh runs over them."""

    def __init__(self, chip: Chip, shape: Sequence[int], mesh: Mapping[str, int], places: Any):
        """shape is the slice's; places are the devices' in it, [devices, axes of the slice]."""
        self.chip, self.shape, self.mesh = chip, tuple(shape), mesh
        self.places = np.reshape(places, (*mesh.values(), -1))

    def bandwidth(self, axes: Sequence[str]) -> float:
        """B of devices that differ along these mesh axes, bytes/s."""
        names = list(self.mesh)
        over = [names.index(axis) for axis in axes]
        rows = np.moveaxis(self.places, over, range(len(over)))
        size = math.prod(self.mesh[axis] for axis in axes)
        group = rows.reshape(size, -1, len(self.shape))[:, 0]
        links = 0
        for axis, length in enumerate(self.shape):
            extent = len(np.unique(group[:, axis]))
            closed = extent == length and length % self.chip.ring == 0
            links += 0 if extent == 1 else 2 if closed else 1
        return max(links, 1) * self.chip.link

    def seconds(self, collective: Collective) -> float:
        """That it takes once."""
        size, kind = collective.bytes, collective.kind
        if collective.axes == SLICES:
            return size / self.chip.network
        if kind == "collective-permute":
            return size / self.chip.link
        n = math.prod(self.mesh[axis] for axis in collective.axes)
        passes = {"all-reduce": 2 * (n - 1) / n, "all-to-all": n / 4}.get(kind, (n - 1) / n)
        return size * passes / self.bandwidth(collective.axes)


def links_of(topology: Topology, mesh: Any) -> Links:
    """The links among the devices of a mesh of TPUs."""
    assert topology.chip is not None
    axes = len(topology.shape)
    places = np.array([device.coords[:axes] for device in mesh.devices.flat])
    return Links(topology.chip, topology.shape, dict(mesh.shape), places)
