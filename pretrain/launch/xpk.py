"""A workload on GKE with XPK: `python -m pretrain.launch.xpk --help`."""

import argparse
import shlex
from collections.abc import Sequence

from pretrain.launch import commands
from spade_jax.aot.topology import MAX_SLICES
from spade_jax.parsing import whole_number


def launch(argv: Sequence[str]) -> int:
    """Returns the exit status of xpk."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.launch.xpk",
        description="Submits a program as a workload to a GKE cluster with XPK. The image holds "
        "the repository, installed with the extra [tpu]; --workdir is on storage that all mount.",
        epilog=commands.EPILOG,
    )
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--workload", required=True, help="its name")
    parser.add_argument("--tpu_type", required=True, help="such as v5litepod-256")
    parser.add_argument("--image", required=True, help="of Docker")
    parser.add_argument("--slices", action=whole_number(1, MAX_SLICES), default=1)
    parser.add_argument(
        "--restarts",
        action=whole_number(0, 10**6),
        default=10,
        help="after a lost machine; default: %(default)s",
    )
    commands.add_common(parser)
    options = parser.parse_args(argv)
    commands.require_name(
        "--workload",
        options.workload,
        r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
        "must be at most 40 lowercase letters, digits and hyphens",
    )
    commands.require_name(
        "--tpu_type",
        options.tpu_type,
        r"v[a-z0-9]+-[0-9]+",
        "must be a type and a size, as v5litepod-256",
    )
    program = commands.program_arguments(options.program, here=False)
    command = [
        "xpk",
        "workload",
        "create",
        f"--cluster={options.cluster}",
        f"--workload={options.workload}",
        f"--tpu-type={options.tpu_type}",
        f"--num-slices={options.slices}",
        f"--docker-image={options.image}",
        f"--max-restarts={options.restarts}",
        f"--command=python -u -m {shlex.join(program)} --distributed",
    ]
    return commands.run(command, options.dry_run)


if __name__ == "__main__":
    commands.main(launch)
