"""Makes Pathfinder of the Long Range Arena: `python -m spade_jax.data.lra.pathfinder --help`."""

import dataclasses
import functools
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spade_jax.config import require
from spade_jax.data.lra.stimuli import PUBLISHED, StimulusConfig, draw_stimulus
from spade_jax.data.processes import in_order
from spade_jax.files import check_folder, whole_folder
from spade_jax.parsing import as_in, whole_number
from spade_jax.programs import add_output, add_workers, exit_status, make_parser

_DESCRIPTION = """\
Makes a Pathfinder data set by the published description, with the settings of the hard split of the
Long Range Arena (contours of 14 paddles), in its folders: DIR/curv_contour_length_14 has
imgs/N/sample_M.png, and metadata/N.npy, which are text. Size 32 is the task Pathfinder, 128 Path-X.
"""
_EPILOG = """\
Contours that find no room are begun anew, as published: on one core an image of 32 takes 0.03 s, of
128 0.3 s, of 64, where there is the least room, some 4 s.
"""
_FOLDER = "curv_contour_length_14"
_IN_FOLDER = 1000
_IN_BLOCK = 20


class Sample(NamedTuple):
    """A PNG file, its label and the margin of its paddles."""

    png: bytes
    label: int
    margin: int


def make_samples(block: int, config: StimulusConfig, count: int) -> list[Sample]:
    """The images of a block, of `count` in all."""
    numbers = range(block * _IN_BLOCK, min((block + 1) * _IN_BLOCK, count))
    return [_sample(number, config) for number in numbers]


def _sample(number: int, config: StimulusConfig) -> Sample:
    from PIL import Image

    # One of every two is positive; which one, the seed says.
    first = int(np.random.default_rng([config.seed, number // 2, 1]).random() * 2)
    label = first ^ (number & 1)
    image, margin = draw_stimulus(number, label, config)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return Sample(file.getvalue(), label, margin)


def write_pathfinder(output: Path, config: StimulusConfig, count: int, workers: int) -> None:
    """Writes the images and their metadata, the same for any number of processes.

    Args:
      output: a folder that is not there, or empty; it appears as a whole.

    Raises:
      ConfigError: `output` cannot be made.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    check_folder(output, "--output")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    make = functools.partial(make_samples, config=config, count=count)
    with (
        whole_folder(output) as folder,
        in_order(make, range(math.ceil(count / _IN_BLOCK)), workers) as blocks,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("images", total=count)
        samples = (sample for block in blocks for sample in block)
        for number in range(math.ceil(count / _IN_FOLDER)):
            (folder / _FOLDER / "imgs" / str(number)).mkdir(parents=True)
            (folder / _FOLDER / "metadata").mkdir(exist_ok=True)
            lines = []
            for line in _write_folder(folder / _FOLDER, number, samples, config):
                lines.append(line)
                progress.advance(task)
            metadata = folder / _FOLDER / "metadata" / f"{number}.npy"
            metadata.write_text("".join(lines), encoding="ascii")


def _write_folder(
    root: Path, number: int, samples: Iterator[Sample], config: StimulusConfig
) -> Iterator[str]:
    """Writes the images of one folder; gives the lines of its metadata."""
    for index, sample in zip(range(_IN_FOLDER), samples):
        (root / "imgs" / str(number) / f"sample_{index}.png").write_bytes(sample.png)
        yield (
            f"imgs/{number} sample_{index}.png {index} {sample.label} {config.continuity} "
            f"{config.paddles} {config.distractor_paddles} {config.paddle_length} "
            f"{config.thickness} {sample.margin} 1\n"
        )


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 for a wrong setting, else 1."""
    parser = make_parser("spade_jax.data.lra.pathfinder", _DESCRIPTION, _EPILOG)
    add_output(parser)
    parser.add_argument(
        "--size",
        action=whole_number(1, 10**4),
        default=32,
        metavar="N",
        help=f"pixels in each direction: {', '.join(map(str, PUBLISHED))} (default: 32)",
    )
    parser.add_argument(
        "--count",
        action=whole_number(1, 10**8),
        default=200_000,
        metavar="N",
        help="images, half of them positive (default: 200000)",
    )
    parser.add_argument(
        "--seed",
        action=as_in(StimulusConfig, "seed"),
        default=0,
        metavar="N",
        help="decides all that is drawn (default: 0)",
    )
    add_workers(parser, "processes at work, which change nothing else")

    def program() -> int:
        options = parser.parse_args(argv)
        sizes = ", ".join(map(str, PUBLISHED))
        require(options.size in PUBLISHED, "--size", options.size, f"must be one of {sizes}")
        config = dataclasses.replace(PUBLISHED[options.size], seed=options.seed)
        write_pathfinder(options.output, config, options.count, options.workers)
        print(f"{options.output}/{_FOLDER}: {options.count:,} images of {options.size} pixels")
        return 0

    return exit_status(program, "the output")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
