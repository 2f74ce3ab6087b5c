"""Makes ListOps of the Long Range Arena: `python -m spade_jax.data.lra.listops --help`."""

import argparse
import functools
import hashlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spade_jax.config import ConfigError
from spade_jax.data.lra.expressions import (
    OPERATORS,
    Expression,
    ExpressionConfig,
    draw_expressions,
)
from spade_jax.data.processes import in_order
from spade_jax.files import check_folder, whole_folder
from spade_jax.parsing import as_in, whole_number
from spade_jax.programs import add_output, add_workers, exit_status, make_parser

_DESCRIPTION = """\
Makes the ListOps data set of the Long Range Arena by its published procedure, in the published
files: basic_train.tsv, basic_val.tsv and basic_test.tsv, with columns Source and Target.
"""
# Of one block, and in a row without an expression before settings are taken for impossible.
_ATTEMPTS = 2000
_FRUITLESS = 200
_COUNTS = {"train": 96_000, "validation": 2_000, "test": 2_000}
_FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}
_QUANTILES = (5, 25, 50, 75, 95)


class Statistics:
    """What expressions are like, beside what the published procedure gives with its defaults."""

    # Measured on 1,500 expressions of the published procedure.
    PUBLISHED = (
        ("length, mean", "1033"),
        *((f"length, {q} %", v) for q, v in zip(_QUANTILES, ("541", "688", "944", "1322", "1802"))),
        ("depth, mean", "10.00"),
        ("operators, mean", "147"),
        ("arguments, mean", "6.02"),
        *((f"share of {name}]", "0.25") for name in OPERATORS),
        *(
            (f"share of value {value}", f"{share:.3f}")
            for value, share in enumerate(
                (0.171, 0.090, 0.061, 0.077, 0.089, 0.093, 0.076, 0.082, 0.088, 0.173)
            )
        ),
    )

    def __init__(self) -> None:
        self._rows: list[tuple[int, ...]] = []

    def add(self, found: Expression) -> None:
        self._rows.append((found.length, found.depth, found.value, *found.counts))

    def measured(self) -> dict[str, float]:
        """By the names in `PUBLISHED`."""
        rows = np.array(self._rows)
        lengths, depths, values, counts = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:]
        operators = counts.sum()
        numbers = [
            lengths.mean(),
            *np.percentile(lengths, _QUANTILES),
            depths.mean(),
            operators / len(rows),
            # Every symbol but the root and the ends is an argument of one operator.
            (lengths.sum() - operators - len(rows)) / operators,
            *(counts.sum(axis=0) / operators),
            *(np.bincount(values, minlength=10) / len(rows)),
        ]
        return {name: float(number) for (name, _), number in zip(self.PUBLISHED, numbers)}


def write_listops(
    output: Path, config: ExpressionConfig, counts: dict[str, int], workers: int
) -> Statistics:
    """Writes the files, of different expressions throughout; the same for any number of processes.

    Args:
      output: a folder that is not there, or empty; it appears as a whole.
      counts: expressions of each split.

    Raises:
      ConfigError: `output` cannot be made, or hardly any expression fits the settings.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    check_folder(output, "--output")
    statistics = Statistics()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    make = functools.partial(draw_expressions, config=config, attempts=_ATTEMPTS)
    with (
        whole_folder(output) as folder,
        in_order(make, itertools.count(), workers) as blocks,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        found = _different(blocks, config)
        task = progress.add_task("expressions", total=sum(counts.values()))
        for split, count in counts.items():
            with (folder / _FILES[split]).open("w", encoding="ascii") as file:
                file.write("Source\tTarget\n")
                for _ in range(count):
                    expression = next(found)
                    file.write(f"{expression.source}\t{expression.value}\n")
                    statistics.add(expression)
                    progress.advance(task)
    return statistics


def _different(
    blocks: Iterator[list[Expression]], config: ExpressionConfig
) -> Iterator[Expression]:
    """All expressions, each once."""
    seen: set[bytes] = set()
    fruitless = 0
    for block in blocks:
        before = len(seen)
        for expression in block:
            name = hashlib.blake2b(expression.source.encode(), digest_size=16).digest()
            if name not in seen:
                seen.add(name)
                yield expression
        fruitless = 0 if len(seen) > before else fruitless + 1
        if fruitless == _FRUITLESS:
            raise ConfigError(
                f"--shortest = {config.shortest}: {_FRUITLESS * _ATTEMPTS:,} attempts gave no new "
                f"expression up to --longest = {config.longest} of --depth = {config.depth}; must "
                "be possible"
            )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("spade_jax.data.lra.listops", _DESCRIPTION)
    add_output(parser)
    for split, count in _COUNTS.items():
        parser.add_argument(
            f"--{split}",
            action=whole_number(1, 10**8),
            default=count,
            metavar="N",
            help=f"expressions in {_FILES[split]} (default: {count})",
        )
    for name, words in (
        ("shortest", "symbols of an expression, at least"),
        ("longest", "symbols of an expression, at most"),
        ("depth", "levels"),
        ("arguments", "of an operator, at most"),
        ("operators", "probability of an operator where a digit could be"),
        ("seed", "decides all that is drawn"),
    ):
        default = getattr(ExpressionConfig, name)
        parser.add_argument(
            f"--{name}",
            action=as_in(ExpressionConfig, name),
            default=default,
            metavar="N",
            help=f"{words} (default: {default})",
        )
    add_workers(parser, "processes at work, which change nothing else")
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 for a wrong setting, else 1."""
    parser = _parser()

    def program() -> int:
        options = parser.parse_args(argv)
        names = ("shortest", "longest", "depth", "arguments", "operators", "seed")
        config = ExpressionConfig(**{name: getattr(options, name) for name in names})
        counts = {split: getattr(options, split) for split in _COUNTS}
        statistics = write_listops(options.output, config, counts, options.workers)
        _print(statistics)
        print(f"{options.output}: {sum(counts.values()):,} expressions")
        return 0

    return exit_status(program, "the output")


def _print(statistics: Statistics) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="ListOps, beside the published procedure with its defaults")
    table.add_column("")
    for column in ("here", "published"):
        table.add_column(column, justify="right")
    measured = statistics.measured()
    for name, published in Statistics.PUBLISHED:
        # As many digits as the other has.
        digits = len(published.partition(".")[2])
        table.add_row(name, f"{measured[name]:.{digits}f}", published)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
