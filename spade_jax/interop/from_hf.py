"""Begins a run with the weights of a T5: `python -m spade_jax.interop.from_hf --help`."""

import argparse
import sys
from collections.abc import Sequence

from spade_jax.config import MAX_LENGTH
from spade_jax.data.config import DataConfig
from spade_jax.parsing import as_in, whole_number
from spade_jax.programs import add_folders, exit_status, make_parser, quiet_imports
from spade_jax.training.config import TrainConfig

_DESCRIPTION = """\
Makes a run's folder of a T5, T5 v1.1, mT5, umT5 or LongT5 (local) in the layout of Hugging Face.
All its weights are taken, and the bottom layer of its encoder gets a state space beside, whose
matrix begins as 0: the model begins as exactly the one that it comes from. Fine-tuning and
pre-training go on from the folder (--config.init_from=DIR).
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.interop.from_hf", _DESCRIPTION)
    add_folders(
        parser,
        "with config.json, weights (safetensors or PyTorch) and spiece.model or tokenizer.json",
    )
    parser.add_argument(
        "--encoder",
        choices=("window", "full"),
        default="window",
        help="what its layers attend to; window: the same as T5's for inputs up to radius + 1 "
        "tokens, and as LongT5's for all",
    )
    parser.add_argument(
        "--radius",
        action=whole_number(1, MAX_LENGTH),
        help="of the window; default: LongT5's own, else 127",
    )
    parser.add_argument(
        "--no_state_space", action="store_true", help="add none: the model as it is"
    )
    parser.add_argument("--state_size", action=whole_number(2, 4096), default=64)
    parser.add_argument(
        "--seed", action=as_in(TrainConfig, "seed"), default=0, help="of what is new"
    )
    parser.add_argument(
        "--input_length",
        action=as_in(DataConfig, "input_length"),
        help="the most tokens of an input; default: the checkpoint's n_positions, else 512",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="a SentencePiece .model, or bytes, instead of the checkpoint's own",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a checkpoint that cannot be read, 2 for a wrong setting."""

    def program() -> int:
        options = parse(argv)
        with quiet_imports():
            # Only here, so that --help and wrong options need no JAX and no TensorFlow.
            from spade_jax.interop.hf.config import Choices
            from spade_jax.interop.hf.start import start

        choices = Choices(
            options.encoder, options.radius, not options.no_state_space, options.state_size
        )
        for line in start(
            options.checkpoint,
            options.output,
            choices,
            seed=options.seed,
            input_length=options.input_length,
            vocabulary=options.vocabulary,
        ):
            print(line)
        return 0

    return exit_status(program, "the checkpoint")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
