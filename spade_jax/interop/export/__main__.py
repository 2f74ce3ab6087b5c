"""Writes a run's model as other programs read it: `python -m spade_jax.interop.export --help`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from spade_jax.config import MAX_LENGTH, ConfigError
from spade_jax.decoding.config import DecodingConfig
from spade_jax.files import check_folder
from spade_jax.parsing import as_in, whole_number
from spade_jax.programs import (
    add_folders,
    add_hosts,
    exit_status,
    hosts_config,
    make_parser,
    quiet_imports,
)

FORMATS = {
    "transformers": "a folder for PyTorch's AutoModelForSeq2SeqLM and AutoTokenizer",
    "safetensors": "the parameters alone, layer by layer, and the configuration",
    "stablehlo": "programs that JAX alone runs: encoder, decoder step, greedy and beam search",
    "savedmodel": "TensorFlow's: strings in, strings out",
    "orbax": "a run's folder with the parameters alone",
}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

_DESCRIPTION = """\
Writes the best model of a run, as decoding takes it, in the form of another program. What is
written is loaded again in a process of its own, and its logits and outputs of some lines compared
with the run's. docs/export.md has a recipe for each format:

""" + "\n".join(f"  {name:13} {words}" for name, words in FORMATS.items())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.interop.export", _DESCRIPTION)
    add_folders(parser, "a workdir")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the parameters; those of state spaces stay float32",
    )
    parser.add_argument(
        "--shard_megabytes",
        action=whole_number(1, 10**6),
        default=5000,
        metavar="N",
        help="of a file of parameters",
    )
    parser.add_argument(
        "--license", metavar="NAME", help="of the model, for its card, such as apache-2.0"
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not load and compare what was written"
    )
    programs = parser.add_argument_group("stablehlo and savedmodel")
    programs.add_argument(
        "--lengths",
        nargs="+",
        action=whole_number(1, MAX_LENGTH),
        metavar="N",
        help="of inputs, each with programs of its own; default: 32, 64, … up to the run's",
    )
    programs.add_argument(
        "--max_length",
        action=as_in(DecodingConfig, "max_length"),
        default=128,
        help="the most tokens of an output",
    )
    programs.add_argument(
        "--beams", action=as_in(DecodingConfig, "beams"), default=4, help="of beam search"
    )
    programs.add_argument(
        "--length_penalty", action=as_in(DecodingConfig, "length_penalty"), default=0.6
    )
    programs.add_argument(
        "--platforms",
        nargs="+",
        choices=PLATFORMS,
        default=["cpu", "cuda", "tpu"],
        help="that the programs run on",
    )
    add_hosts(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that cannot be read or exported, 2 for a wrong
    setting."""
    try:
        options = parse(argv)
        check_folder(options.output, "--output")
        meeting = hosts_config(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def program() -> int:
        # Only here, so that --help and wrong settings need no JAX and no TensorFlow.
        with quiet_imports():
            from spade_jax import hosts
            from spade_jax.interop.export.program import export

            form = importlib.import_module(f"spade_jax.interop.export.{options.format}")

        hosts.join(meeting)
        export(form, options)
        return 0

    return exit_status(program, str(options.output))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
