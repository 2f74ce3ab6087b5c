"""The processes that may be one run: how many there are, and how they meet."""

import dataclasses
import re
from typing import Annotated

from spade_jax.config.schema import Range, check_fields, require

MAX_DEVICES = 2**20


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Whether this process is one of several; no part of the configuration, which all share.

    Attributes:
      distributed: ask the environment, whatever it looks like.
      coordinator: HOST:PORT of process 0; None asks the environment, if that is a cluster's.
      processes: how many there are.
      process: which one this is, from 0.
      timeout: seconds to wait for the others at the start.
    """

    distributed: bool = False
    coordinator: str | None = None
    processes: Annotated[int, Range(1, MAX_DEVICES)] | None = None
    process: Annotated[int, Range(0, MAX_DEVICES - 1)] | None = None
    timeout: Annotated[float, Range(1e-3, 1e6)] = 300.0

    def __post_init__(self) -> None:
        check_fields(self, "--")
        together = (self.coordinator, self.processes, self.process)
        require(
            all(value is None for value in together) or None not in together,
            "--coordinator",
            self.coordinator,
            "must come with --processes and --process, or none of the three",
        )
        if self.coordinator is not None:
            assert self.processes is not None
            assert self.process is not None
            host, _, port = self.coordinator.rpartition(":")
            require(
                bool(host) and re.fullmatch("[0-9]{1,5}", port) is not None and int(port) < 2**16,
                "--coordinator",
                self.coordinator,
                "must be HOST:PORT",
            )
            require(
                self.process < self.processes,
                "--process",
                self.process,
                f"must be from 0 to {self.processes - 1}",
            )
