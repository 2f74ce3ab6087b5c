"""How well a run uses its time and its devices: goodput, and model FLOP/s utilisation."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, get_args

# What keeps a run from training: restoring or making the state, compiling, waiting for a batch
# while the devices have nothing to do, evaluating, saving as far as training waits for it, and
# beginning and writing a profile.
Cause = Literal["start", "compile", "data", "evaluation", "checkpoint", "profile"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

# FLOP/s of dense bfloat16 matmuls, by how JAX names the device; the vendors' figures.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


class Goodput:
    """The share of a run's time that is spent in training steps, and where the rest goes."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lost = dict.fromkeys(CAUSES, 0.0)

    @contextlib.contextmanager
    def lost_to(self, cause: Cause) -> Iterator[None]:
        """What is done within is no training."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._lost[cause] += time.monotonic() - begin

    @property
    def seconds(self) -> float:
        """The run's time so far."""
        return time.monotonic() - self._begun

    def shares(self) -> dict[str, float]:
        """Of the time so far: `goodput`, and `lost/CAUSE` of each cause; together 1."""
        elapsed = max(self.seconds, 1e-9)
        lost = {f"lost/{cause}": seconds / elapsed for cause, seconds in self._lost.items()}
        return {"goodput": 1.0 - sum(lost.values()), **lost}


def utilisation(flops_per_second: float, devices: int, device_kind: str) -> float | None:
    """MFU (arXiv 2204.02311): the model's FLOP/s over the devices' peak; None where that is
    unknown."""
    peak = PEAK_FLOPS.get(device_kind)
    return None if peak is None else flops_per_second / (devices * peak)
