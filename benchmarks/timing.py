"""Times and memory of compiled programs, measured so that they can be compared.

On a shared machine the same program takes half as long again a moment later. The programs of one
comparison therefore take turns, and what is reported is the median over the rounds: of the times,
and of the ratios of times within a round.
"""

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One compiled program.

    Attributes:
      seconds: of each round; none where the program does not fit into memory.
      temporary_bytes: what it needs at its peak beside arguments and results, as its compiler says.
    """

    seconds: tuple[float, ...]
    temporary_bytes: int

    @property
    def median(self) -> float | None:
        """Seconds."""
        return float(np.median(self.seconds)) if self.seconds else None

    def slowdown(self, other: "Measurement") -> float | None:
        """How many times as long as `other` it takes: the median over the rounds."""
        if not self.seconds or not other.seconds:
            return None
        return float(np.median(np.divide(self.seconds, other.seconds)))


def measure(
    programs: Mapping[str, Callable[..., Any]], arguments: Sequence[Any], repeats: int
) -> dict[str, Measurement]:
    """Compiles functions of the same arguments and runs them in turns.

    Compilation is not counted, and each run is waited for. At its turn a program runs twice, and
    the second time counts: the memory and caches that the one before it left behind do not. A
    program whose temporary memory exceeds half of the device's is compiled only.
    """
    compiled = {
        name: jax.jit(function).lower(*arguments).compile() for name, function in programs.items()
    }
    return run_in_turns(compiled, arguments, repeats)


def run_in_turns(
    compiled: Mapping[str, jax.stages.Compiled],
    arguments: Sequence[Any],
    repeats: int,
    shortest: float = 0.0,
) -> dict[str, Measurement]:
    """As `measure`, of what is compiled.

    Args:
      shortest: seconds that a reading of the clock covers at least: a program that takes less runs
        several times, one run behind the other, and their mean counts. A device that is fed ahead
        of time does not wait for the host then.
    """
    needed = {name: temporary_bytes(program) for name, program in compiled.items()}
    limit = device_memory() // 2
    arguments = jax.block_until_ready(jax.device_put(arguments))
    fitting = {name: program for name, program in compiled.items() if needed[name] <= limit}
    runs = {name: _runs(program, arguments, shortest) for name, program in fitting.items()}
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(repeats):
        for name, program in fitting.items():
            jax.block_until_ready(program(*arguments))
            start = time.perf_counter()
            for _ in range(runs[name]):
                result = program(*arguments)
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - start) / runs[name])
    return {name: Measurement(tuple(seconds[name]), needed[name]) for name in compiled}


def _runs(program: Callable[..., Any], arguments: Sequence[Any], shortest: float) -> int:
    """How often a program runs in so many seconds, at least once and at most a hundred times."""
    if shortest == 0.0:
        return 1
    jax.block_until_ready(program(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    once = time.perf_counter() - start
    return max(1, min(100, round(shortest / max(once, 1e-6))))


def temporary_bytes(program: jax.stages.Compiled) -> int:
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes


def device_memory() -> int:
    """Bytes of the first device: the machine's physical memory where that is a CPU."""
    stats = jax.devices()[0].memory_stats()
    if stats is not None:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine() -> str:
    """What the numbers were measured on and with, in one line."""
    device = jax.devices()[0]
    cpu_info = Path("/proc/cpuinfo")
    cpu = platform.machine()
    if cpu_info.exists():
        models = [line for line in cpu_info.read_text().splitlines() if "model name" in line]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    accelerator = "" if device.platform == "cpu" else f"{jax.device_count()} {device.device_kind}, "
    memory = device_memory() / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    return (
        f"{accelerator}{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {versions}"
    )


def milliseconds(measurement: Measurement) -> str:
    """The median time for a table."""
    if measurement.median is None:
        return "too large"
    decimals = 3 if measurement.median < 1e-3 else 1 if measurement.median < 0.1 else 0
    return f"{1e3 * measurement.median:,.{decimals}f}"


def mebibytes(measurement: Measurement) -> str:
    """The temporary memory for a table."""
    size = measurement.temporary_bytes / 2**20
    return f"{size:,.{1 if size < 100 else 0}f}"


def times(ratio: float | None) -> str:
    """A ratio for a table."""
    return "" if ratio is None else f"{ratio:.{1 if ratio < 100 else 0}f}x"
