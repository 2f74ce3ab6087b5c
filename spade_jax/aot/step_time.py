"""The time of a compiled step on TPUs that are not here, put together."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spade_jax.aot import estimate, links, origins
from spade_jax.aot.hlo import Collective
from spade_jax.aot.hlo_program import Program
from spade_jax.aot.kernels import count_bundles
from spade_jax.aot.topology import Topology
from spade_jax.telemetry.goodput import utilisation


@dataclasses.dataclass(frozen=True)
class PlaceTime:
    """Of one place in the model, seconds in all and in each of `origins.PHASES`."""

    name: str
    seconds: float
    phases: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class StepTime:
    """What a device's time in a step goes to, in seconds.

    Attributes:
      computations: the sum of the compiler's estimates, and of kernels' scheduled bundles.
      by_bundles: how much of it is counted by scheduled bundles.
      one_round: kernels with loops of which one round is counted, for how many there are is not
        known, each as often as it runs.
      declared: how much of it is what kernels say of themselves, for want of anything better.
      not_counted: kernels of which nothing is known, each as often as it runs.
      places: what `computations` consists of, the most first.
      collectives: what each collective takes in all, by its kind and mesh axes.
      flops: the objective's formula on this device; None for a part of a step.
      device_kind: JAX's name of the device.
    """

    computations: float
    by_bundles: float
    one_round: Mapping[str, int]
    declared: float
    not_counted: Mapping[str, int]
    places: tuple[PlaceTime, ...]
    collectives: Mapping[tuple[str, tuple[str, ...]], float]
    flops: float | None
    device_kind: str

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a step: with collectives wholly hidden behind computations, and not at all."""
        waiting = sum(self.collectives.values())
        return max(self.computations, waiting), self.computations + waiting

    @property
    def peak_shares(self) -> tuple[float, float] | None:
        """Model FLOP/s over the device's peak in `bounds`; None where one is not known."""
        if self.flops is None:
            return None
        most, least = (utilisation(self.flops / s, 1, self.device_kind) for s in self.bounds)
        return None if most is None or least is None else (most, least)


def step_time(
    program: Program,
    collectives: Sequence[tuple[Collective, int]],
    topology: Topology,
    mesh: Any,
    flops: float | None,
) -> StepTime:
    """The time of a program for TPUs, whose kernels are compiled once more for that.

    Args:
      collectives: the program's, each with how often it runs.
      mesh: of the devices that it is compiled for.
      flops: see `StepTime`.
    """
    assert topology.chip is not None
    bundles = count_bundles(estimate.kernels(program), topology)
    parts = estimate.work(program, bundles)
    over = links.links_of(topology, mesh)
    waiting: dict[tuple[str, tuple[str, ...]], float] = {}
    for collective, times in collectives:
        key = collective.kind, collective.axes
        waiting[key] = waiting.get(key, 0.0) + times * over.seconds(collective)
    return summarise(parts, topology.chip.clock, waiting, flops, mesh.devices.flat[0].device_kind)


def summarise(
    parts: Sequence[estimate.Work],
    clock: float,
    collectives: Mapping[tuple[str, tuple[str, ...]], float],
    flops: float | None,
    device_kind: str,
) -> StepTime:
    """`StepTime` of the parts of a step, at a clock in Hz."""
    phases: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    sources: collections.Counter[str] = collections.Counter()
    one_round: collections.Counter[str] = collections.Counter()
    not_counted: collections.Counter[str] = collections.Counter()
    for part in parts:
        phases[part.place][part.phase] += part.all_cycles
        sources[part.source] += part.all_cycles
        if part.source == estimate.ONE_ROUND:
            one_round[part.name] += part.times
        if part.cycles is None:
            not_counted[part.name] += part.times
    places = [
        PlaceTime(
            name,
            cycles.total() / clock,
            {phase: cycles[phase] / clock for phase in origins.PHASES},
        )
        for name, cycles in phases.items()
    ]
    return StepTime(
        computations=sources.total() / clock,
        by_bundles=(sources[estimate.BUNDLES] + sources[estimate.ONE_ROUND]) / clock,
        one_round=dict(one_round),
        declared=sources[estimate.DECLARED] / clock,
        not_counted=dict(not_counted),
        places=tuple(sorted(places, key=lambda place: -place.seconds)),
        collectives=dict(collectives),
        flops=flops,
        device_kind=device_kind,
    )
