"""Pre-trains a SPADE encoder-decoder by span corruption: `python -m pretrain --help`."""

import sys
from collections.abc import Sequence

from pretrain.config import PretrainConfig
from spade_jax.programs import exit_status, parse, quiet_imports, take_large_pages

DESCRIPTION = """\
Pre-trains a State sPace AugmenteD transformEr: an encoder-decoder that learns to fill in masked
spans of text. Prints its progress and, at the end, how it fills in passages that it has not seen.
"""
FLAGS = {
    "print_sharding": "print where each parameter lies, and train nothing",
    "extend": "go on with other settings than the run in the workdir had, from its newest step",
}


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that cannot go on, 2 for a wrong setting."""

    def program() -> int:
        command = parse(argv, PretrainConfig, "pretrain", DESCRIPTION, FLAGS)
        with quiet_imports():
            # Only here, so that --help and wrong settings need no JAX and no TensorFlow.
            from pretrain.program import pretrain
            from spade_jax import hosts

        hosts.join(command.hosts)
        return pretrain(command.config, command.workdir, **command.flags)

    return exit_status(program, "the workdir")


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
