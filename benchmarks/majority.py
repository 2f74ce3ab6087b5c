"""Makes rows of letters, of which one comes somewhat more often than the others, and is the class.

python -m benchmarks.majority --help
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.arguments import positive
from spade_jax.files import check_folder, whole_folder
from spade_jax.programs import add_output, exit_status

LETTERS = "abcd"
# Of the letter that is the class: of 256, 82 in place of 58 for each of the others.
SHARE = 0.32


def rows(count: int, length: int, seed: int) -> list[tuple[str, str]]:
    """Texts and labels, each label as often as the others."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(LETTERS))
    # The letter itself, or one of the three others.
    others = (labels[:, None] + rng.integers(1, len(LETTERS), (count, length))) % len(LETTERS)
    own = rng.random((count, length)) < SHARE
    letters = np.where(own, labels[:, None], others)
    return [
        ("".join(LETTERS[i] for i in row), LETTERS[label]) for row, label in zip(letters, labels)
    ]


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 for a folder that is there already, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.majority", description=__doc__)
    add_output(parser)
    parser.add_argument("--length", type=positive, default=256, help="of a row (default: 256)")
    parser.add_argument("--train", type=positive, default=4000, help="rows (default: 4000)")
    parser.add_argument("--validation", type=positive, default=400, help="rows (default: 400)")

    def program() -> int:
        options = parser.parse_args(argv)
        check_folder(options.output, "--output")
        with whole_folder(options.output) as folder:
            for seed, split in enumerate(("train", "validation")):
                lines = rows(getattr(options, split), options.length, seed)
                text = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in lines)
                (folder / f"{split}.tsv").write_text(text)
        return 0

    return exit_status(program, "the output")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
