"""A Slurm job with GPUs: `python -m pretrain.launch.slurm --help`."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from pretrain.launch import commands
from spade_jax.parsing import whole_number


def launch(argv: Sequence[str]) -> int:
    """Returns the exit status of sbatch."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.launch.slurm",
        description="Submits a program as a Slurm job with one process a GPU, started here in the "
        "repository, which all nodes see. Three minutes before the time is up the program gets "
        "SIGTERM and saves; a job that lost a node is queued again. Both go on where they were.",
        epilog=commands.EPILOG,
    )
    parser.add_argument("--nodes", action=whole_number(1, 2**16), required=True)
    parser.add_argument("--gpus", action=whole_number(1, 2**10), required=True, help="of each node")
    parser.add_argument(
        "--cpus", action=whole_number(1, 2**10), default=8, help="of each GPU; default: %(default)s"
    )
    parser.add_argument("--time", required=True, metavar="[D-]HH:MM:SS")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--name", default="spade", help="of the job; default: %(default)s")
    commands.add_common(parser)
    options = parser.parse_args(argv)
    commands.require_name(
        "--time", options.time, r"([0-9]+-)?[0-9]{1,3}:[0-9]{2}:[0-9]{2}", "must be [D-]HH:MM:SS"
    )
    program = commands.program_arguments(options.program, here=True)
    python = Path(".venv/bin/python")
    inside = f"exec {python} -u -m {shlex.join(program)}"
    command = [
        "sbatch",
        f"--job-name={options.name}",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={options.gpus}",
        f"--gpus-per-node={options.gpus}",
        f"--cpus-per-task={options.cpus}",
        f"--time={options.time}",
        "--signal=TERM@180",
        "--requeue",
        "--open-mode=append",
    ]
    command += [f"--partition={options.partition}"] if options.partition else []
    command += [f"--account={options.account}"] if options.account else []
    return commands.run(
        [*command, f"--wrap=srun --kill-on-bad-exit=1 sh -c {shlex.quote(inside)}"], options.dry_run
    )


if __name__ == "__main__":
    commands.main(launch)
