"""Several processes on this machine: `python -m pretrain.launch.local --help`."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from pretrain.launch import commands
from spade_jax.aot.topology import MAX_HOST_DEVICES, forced_cpu
from spade_jax.parsing import whole_number

# After the first process ends with an error, the others get SIGTERM, and SIGKILL so much later.
_GRACE_SECONDS = 20.0


def launch(argv: Sequence[str]) -> int:
    """Returns 0 if all processes did, else the status of the first that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.launch.local",
        description="Starts a program as several processes on this machine, which are one run.",
        epilog=commands.EPILOG,
    )
    parser.add_argument(
        "--processes", action=whole_number(1, MAX_HOST_DEVICES), required=True, metavar="N"
    )
    parser.add_argument(
        "--cpu_devices",
        action=whole_number(0, MAX_HOST_DEVICES),
        default=0,
        metavar="N",
        help="that each process sees, on CPUs; default: the devices that JAX finds",
    )
    commands.add_common(parser)
    options = parser.parse_args(argv)
    program = commands.program_arguments(options.program, here=True)
    port = _free_port()
    own = [sys.executable, "-u", "-m", *program]
    environment = dict(os.environ)
    if options.cpu_devices:
        environment |= forced_cpu(options.cpu_devices, environment.get("XLA_FLAGS", ""))
    started = [
        [
            *own,
            f"--coordinator=127.0.0.1:{port}",
            f"--processes={options.processes}",
            f"--process={process}",
        ]
        for process in range(options.processes)
    ]
    if options.dry_run:
        for command in started:
            commands.run(command, dry_run=True)
        return 0
    return _run_together(started, environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_together(started: list[list[str]], environment: dict[str, str]) -> int:
    """Runs all to their end. A signal goes to all; where one fails, the others are stopped."""
    processes = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in started
    ]

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                # They stop together at a SIGTERM; a Ctrl-C of each would cut off what they save.
                process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    printers = [
        threading.Thread(target=_print_lines, args=(process.stdout, index))
        for index, process in enumerate(processes)
    ]
    for printer in printers:
        printer.start()
    failed = _first_failure(processes)
    for printer in printers:
        printer.join()
    return failed


def _print_lines(lines: IO[str] | None, index: int) -> None:
    assert lines is not None
    for line in lines:
        print(line if index == 0 else f"process {index}: {line}", end="", flush=True)


def _first_failure(processes: list[subprocess.Popen]) -> int:
    while True:
        statuses = [process.poll() for process in processes]
        failures = [(i, status) for i, status in enumerate(statuses) if status not in (None, 0)]
        if failures:
            break
        if all(status == 0 for status in statuses):
            return 0
        time.sleep(0.1)
    index, status = failures[0]
    assert status is not None
    how = f"status {status}" if status > 0 else signal.Signals(-status).name
    print(
        f"error: process {index} of {len(processes)} ended with {how}; the others are stopped; "
        "give the same command again",
        file=sys.stderr,
        flush=True,
    )
    for process in processes:
        if process.poll() is None:
            process.kill() if status < 0 else process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return status if status > 0 else 1


if __name__ == "__main__":
    commands.main(launch)
