"""seqio's registries: Tasks and Mixtures that are there once, under names made of what they are."""

from collections.abc import Sequence
from typing import Any

import seqio

from spade_jax.data.digests import digest


def registered(name: str, **task: Any) -> seqio.Task:
    """Registers, or finds, the Task of this name; `task` is as of `seqio.TaskRegistry.add`."""
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    return seqio.TaskRegistry.add(name, **task)


def mixture_of(kind: str, tasks: Sequence[seqio.Task], rates: Sequence[float]) -> seqio.Mixture:
    """Registers, or finds, the Mixture of these Tasks, each with its share of the examples."""
    names = [task.name for task in tasks]
    name = f"{kind}_mixture_" + digest(names, rates)
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    return seqio.MixtureRegistry.add(name, list(zip(names, rates)))
