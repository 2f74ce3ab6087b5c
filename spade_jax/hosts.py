"""Several processes that are one run: how they meet, agree and stop together."""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from spade_jax.config import ConfigError, RunError
from spade_jax.config.hosts import MAX_DEVICES, HostsConfig
from spade_jax.parsing import whole_from_environment

# A process that is not heard of for so long is lost.
_LOST_SECONDS = 30


# By which clusters tell how many processes there are, and what else JAX reads of theirs.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_ENVIRONMENT = (
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "TPU_WORKER_ID",
    "JAX_COORDINATOR_PORT",
)


def join(config: HostsConfig) -> None:
    """Makes this process one of several, where the command line or the environment says so.

    The environments of Cloud TPU, Slurm and Open MPI are known. Exits with status 1 and a sentence
    where the others do not come.

    Raises:
      ConfigError: the environment has no such number, or names no process to meet at.
    """
    if config.coordinator is None and not config.distributed and not _in_a_cluster(os.environ):
        return
    if config.coordinator is None:
        for name in _ENVIRONMENT:
            whole_from_environment(name, 0, 2**63 - 1, 0)
    # Of CPU devices alone; accelerators have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = config.coordinator or "that the environment names"

    def give_up() -> None:
        # The library would abort with a stack of its own.
        print(
            f"error: coordinator = {where}: not all processes met there within {config.timeout:g} "
            f"s{_of(config)}; must be an address of process 0 that all others reach",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(config.timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.processes,
            config.process,
            initialization_timeout=int(config.timeout) + 60,
            heartbeat_timeout_seconds=_LOST_SECONDS,
            shutdown_timeout_seconds=_LOST_SECONDS,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"coordinator = {where}: cannot be found ({error}); must be set by --coordinator, "
            "--processes and --process where no cluster says it"
        ) from None
    finally:
        timer.cancel()


def _of(config: HostsConfig) -> str:
    return "" if config.process is None else f" (process {config.process} of {config.processes})"


def _in_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment is that of one of several processes."""
    return any(
        whole_from_environment(name, 1, MAX_DEVICES, 1, environment) > 1 for name in _SIZES
    ) or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def is_first() -> bool:
    """Whether this process is the one that writes what there is one of."""
    return jax.process_index() == 0


def check_agreement(settings: Mapping[str, Any], what: str = "configuration") -> None:
    """Raises ConfigError where processes differ in their settings or the code that they run.

    Args:
      what: messages call the settings.
    """
    if jax.process_count() == 1:
        return
    found = {
        what: hashlib.sha256(json.dumps(settings, sort_keys=True).encode()),
        "code": _code_digest(),
    }
    for name, digest in found.items():
        own = np.frombuffer(digest.digest()[:8], np.uint8)
        every = multihost_utils.process_allgather(own)
        differing = [str(i) for i, other in enumerate(every) if not np.array_equal(other, every[0])]
        if differing:
            raise ConfigError(
                f"{name}: differs between process 0 and process {', '.join(differing)}; must be "
                "the same on all"
            )


def _code_digest() -> Any:
    """Of all the package's source files, and the versions of what computes."""
    digest = hashlib.sha256(f"{jax.__version__} {sys.version_info[:2]}".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest


@dataclasses.dataclass
class StopSignals:
    """SIGTERM and SIGINT; on several processes, a SIGTERM at any one of them.

    Attributes:
      received: whether one came; on all processes at the same step.
    """

    received: bool = False

    def at(self, step: int) -> bool:
        """Whether to stop at this step: the same on all processes, which all must ask at it."""
        if jax.process_count() > 1 and not self.received:
            self.received = multihost_utils.reached_preemption_sync_point(step)
        return self.received


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Notes the first SIGTERM or SIGINT; a second one ends the program as usual."""
    stop = StopSignals()
    if jax.process_count() > 1:  # JAX has its own handler, which tells the others.
        yield stop
        if not stop.received:
            end_at_sigterm()
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        stop.received = True
        restore()

    for number in signals:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()


def end_at_sigterm() -> None:
    """Lets SIGTERM end this process as usual where nothing asks for `StopSignals`: if it is one of
    several, JAX would note the signal, and go on."""
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """What JAX says of a process that is gone, as RunError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        raise RunError(
            f"process {jax.process_index()} of {jax.process_count()}: lost another one "
            f"({reason:.200}); start all of them again, and they go on from the newest checkpoint"
        ) from error


def leave(status: int, error: Exception | None = None) -> None:
    """Ends the process, if it is one of several. After an error, which is printed, at once: the
    others may never come to say goodbye."""
    if jax.process_count() == 1:
        return
    if error is not None:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if status != 0:
        os._exit(status)
    jax.distributed.shutdown()


def total(number: float) -> float:
    """The sum of all processes' numbers."""
    if jax.process_count() == 1:
        return number
    # As bytes, for JAX would make it float32.
    every = multihost_utils.process_allgather(np.frombuffer(np.float64(number).tobytes(), np.uint8))
    return float(np.frombuffer(every.tobytes(), np.float64).sum())
