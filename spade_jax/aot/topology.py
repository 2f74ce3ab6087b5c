"""Devices that a program is compiled for, here or not: `KIND:SHAPE`.

Nothing here imports JAX before it is asked for devices.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

from spade_jax.config import ConfigError, Range, nearest, require

GIB = 2**30


class Chip(NamedTuple):
    """A kind of TPU, as its makers have it.

    Attributes:
      memory: GiB.
      axes: of the grid that chips form: those of v5e and v6e a plane.
      largest: chips in the largest slice.
      clock: Hz.
      link: bytes/s that a link to a neighbouring chip carries in each direction; there are two
        links along each axis.
      network: bytes/s of the network among slices, a chip's share of its host's, each way.
      ring: an axis of a multiple of so many chips is closed to a ring.
    """

    memory: int
    axes: int
    largest: int
    clock: float
    link: float
    network: float
    ring: int


# Memory, links and network are those of Google Cloud's pages on each kind: a link has half of the
# "bidirectional ICI bandwidth" over two links an axis; network cards have 25 (v5e), 50 (v5p) and
# 100 (v6e) Gbit/s a chip, and v4 is taken to be as v5p. v4's clock and links are in
# arXiv 2304.01433. At their clocks 4 and 8 matrix units of 128 x 128 give v5e's and v5p's peaks.
# v6e's clock is not published, and taken to be v5p's: its compiler then has a large matmul at 70%
# of the peak, those of the others at 88 to 93%.
CHIPS = {
    "v4": Chip(32, 3, 4096, 1.05e9, 50e9, 6.25e9, ring=4),
    "v5e": Chip(16, 2, 256, 1.5e9, 50e9, 3.125e9, ring=16),
    "v5p": Chip(95, 3, 8960, 1.75e9, 100e9, 6.25e9, ring=4),
    "v6e": Chip(32, 2, 256, 1.75e9, 100e9, 12.5e9, ring=16),
}
HOSTS = ("cpu", "gpu")
# Beyond this XLA takes minutes for the devices alone, or ends the process.
MAX_HOST_DEVICES = 1024
MAX_SLICES = 1024


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of TPU chips, or so many CPU or GPU devices.

    Attributes:
      kind: of CHIPS or HOSTS.
      shape: chips along each axis of a slice; of a host, the one number of devices.
      slices: how many such slices a network joins.
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def size(self) -> int:
        """How many devices."""
        return self.slices * math.prod(self.shape)

    @property
    def chip(self) -> Chip | None:
        """None of a host's devices."""
        return CHIPS.get(self.kind)

    @property
    def memory(self) -> int | None:
        """Bytes of one chip; None where they are not known."""
        return None if self.chip is None else self.chip.memory * GIB

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str, slices: int = 1) -> Topology:
    """`v5e:16x16`, `v5p:4x4x4`, `cpu:8`.

    Raises:
      ConfigError: another form, kind, or number of axes; several slices of what is no TPU.
    """
    kind, _, shape = text.partition(":")
    if kind not in (*CHIPS, *HOSTS):
        raise ConfigError(f"--topology = {text!r}: no such kind{nearest(kind, (*CHIPS, *HOSTS))}")
    axes = CHIPS[kind].axes if kind in CHIPS else 1
    example = {1: "8", 2: "4x4", 3: "4x4x4"}[axes]
    require(
        re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", shape) is not None
        and shape.count("x") + 1 == axes,
        "--topology",
        text,
        f"must have {axes} number(s) of devices behind the colon, such as {kind}:{example}",
    )
    most = CHIPS[kind].largest if kind in CHIPS else MAX_HOST_DEVICES
    # Of more digits than any, and more than int() takes, a size need not be known exactly.
    sizes = [int(size) if len(size) < 10 else most + 1 for size in shape.split("x")]
    require(
        math.prod(sizes) <= most, "--topology", text, f"must have at most {most} devices of {kind}"
    )
    Range(1, MAX_SLICES).require("--slices", slices)
    require(
        slices == 1 or kind in CHIPS,
        "--slices",
        slices,
        f"must be 1 with --topology = {text!r}: only TPUs come in slices",
    )
    return Topology(kind, tuple(sizes), slices)


def forced_cpu(count: int, flags: str) -> dict[str, str]:
    """The environment in which JAX finds so many CPU devices and no others.

    Args:
      flags: what is in XLA_FLAGS already.
    """
    forced = f"--xla_force_host_platform_device_count={count}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {forced}".strip()}


def set_environment(topology: Topology) -> None:
    """What must be set before JAX is imported: forced CPU devices, and a libtpu without a TPU that
    asks no server and logs nothing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if topology.kind == "gpu":
        return
    if topology.kind == "cpu":
        os.environ.update(forced_cpu(topology.size, os.environ.get("XLA_FLAGS", "")))
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        # The lock is for processes that would share a TPU; compilers share nothing.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    }.items():
        os.environ.setdefault(name, value)


def devices(topology: Topology) -> list[Any]:
    """The devices, which need not be here where they are TPUs.

    Raises:
      ConfigError: libtpu is not installed, it knows no such slice, or there are too few devices.
    """
    import jax
    from jax.experimental import topologies

    if topology.kind in HOSTS:
        try:
            found = jax.devices(topology.kind)
        except RuntimeError:
            found = []
        require(
            len(found) >= topology.size,
            "--topology",
            str(topology),
            f"must be at most the {len(found)} {topology.kind} device(s) here: only TPUs can be "
            "compiled for from afar",
        )
        return found[: topology.size]
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology = {str(topology)!r}: needs the package libtpu, which no TPU is needed "
            "for: pip install 'spade-jax[tpu-aot]'"
        )
    try:
        # One device for the two cores of a chip, as programs on v4 see it.
        more = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
        found = topologies.get_topology_desc(
            topology_name=str(topology), platform="tpu", num_slices=topology.slices, **more
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"--topology = {str(topology)!r}: must be a slice that libtpu knows "
            f"({str(error).splitlines()[0]})"
        ) from None
    return list(found)
