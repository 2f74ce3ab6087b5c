"""Fine-tunes a pre-trained SPADE on pairs of texts: `python -m finetune --help`."""

import sys
from collections.abc import Sequence

from finetune.config import FinetuneConfig
from spade_jax.programs import exit_status, parse, quiet_imports, take_large_pages

DESCRIPTION = """\
Fine-tunes a State sPace AugmenteD transformEr on a task of texts and their targets: GLUE,
summarisation, or a table of your own. Begins with the parameters of a pre-training run
(--config.init_from=WORKDIR) and ends with metrics and predictions.
"""
FLAGS = {
    "eval_only": "evaluate the run's best parameters, or those of init_from where it has none, and "
    "train nothing",
    "print_sharding": "print where each parameter lies, and train nothing",
    "extend": "go on with other settings than the run in the workdir had, from its newest step",
}


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that cannot go on, 2 for a wrong setting."""

    def program() -> int:
        command = parse(argv, FinetuneConfig, "finetune", DESCRIPTION, FLAGS)
        if not command.flags["eval_only"]:
            command.config.require_training()
        with quiet_imports():
            # Only here, so that --help and wrong settings need no JAX and no TensorFlow.
            from finetune.program import finetune
            from spade_jax import hosts

        hosts.join(command.hosts)
        return finetune(command.config, command.workdir, **command.flags)

    return exit_status(program, "the workdir")


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
