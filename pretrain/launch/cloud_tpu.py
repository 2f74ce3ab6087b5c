"""All workers of a Cloud TPU slice: `python -m pretrain.launch.cloud_tpu --help`."""

import argparse
import shlex
from collections.abc import Sequence

from pretrain.launch import commands


def launch(argv: Sequence[str]) -> int:
    """Returns the exit status of gcloud."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.launch.cloud_tpu",
        description="Starts a program on all workers of a Cloud TPU slice, over gcloud's ssh. The "
        "repository must lie at --directory on each, installed there with the extra [tpu], and "
        "--workdir on storage that they share.",
        epilog=commands.EPILOG,
    )
    parser.add_argument("--name", required=True, help="of the TPU")
    parser.add_argument("--zone", required=True, help="such as us-east5-a")
    parser.add_argument("--project", help="default: gcloud's own")
    parser.add_argument(
        "--directory", default="spade_jax", help="of the repository there; default: %(default)s"
    )
    commands.add_common(parser)
    options = parser.parse_args(argv)
    commands.require_name(
        "--name",
        options.name,
        r"[a-z]([-a-z0-9]*[a-z0-9])?",
        "must be lowercase letters, digits and hyphens, as Cloud TPUs are named",
    )
    commands.require_name(
        "--zone", options.zone, r"[a-z]+-[a-z]+[0-9]+-[a-z]", "must be a zone, such as us-east5-a"
    )
    program = commands.program_arguments(options.program, here=False)
    inside = f"cd {shlex.quote(options.directory)} && .venv/bin/python -u -m {shlex.join(program)}"
    command = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", options.name, "--worker=all"]
    command += [f"--zone={options.zone}"]
    command += [f"--project={options.project}"] if options.project else []
    return commands.run([*command, f"--command={inside} --distributed"], options.dry_run)


if __name__ == "__main__":
    commands.main(launch)
