"""What the data of a configuration is like: `python -m spade_jax.data.preview --help`."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spade_jax.config import from_dict, require
from spade_jax.config.file import parse_overrides, read_settings
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.config import DataConfig, TextConfig, TrainingData
from spade_jax.data.preview.picture import FORMATS
from spade_jax.data.task_config import TaskConfig
from spade_jax.files import check_output
from spade_jax.parsing import PathOption, whole_number
from spade_jax.programs import exit_status, make_parser, quiet_imports

_DESCRIPTION = """\
Reads the data of a configuration, of pre-training or of fine-tuning, as a run would, and says what
it is like before anything is trained on it: how much there is, how long it is, what is cut off and
what would not be, what the vocabulary lacks, which rows come twice, and what a model reads of it.
"""
_EPILOG = """\
The data of the configuration can be overridden as in training, for example

  --config.data.sources.0.kind=text  --config.data.sources.0.train='my/*.txt'
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 for a wrong setting or data at fault, else 1."""
    parser = make_parser("spade_jax.data.preview", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="such as configs/pretrain/quickstart.py"
    )
    parser.add_argument(
        "--limit",
        action=whole_number(1, 2**31 - 1),
        default=10_000,
        metavar="N",
        help="documents or rows of each set that are looked at, from its first (default: 10,000)",
    )
    parser.add_argument(
        "--picture",
        action=PathOption,
        metavar="FILE",
        help=f"draw how long documents or rows are; ends in {' or '.join(FORMATS)}",
    )

    def program() -> int:
        known, rest = parser.parse_known_args(argv)
        overrides = parse_overrides(rest, parser)
        if known.picture is not None:
            right = f"must end in {' or '.join(FORMATS)}"
            require(known.picture.suffix in FORMATS, "--picture", str(known.picture), right)
            check_output(known.picture, "--picture")
        settings = read_settings(known.config, overrides, "pretrain")
        _preview(settings, known.limit, known.picture)
        return 0

    return exit_status(program, "the picture")


def _preview(settings: Mapping[str, Any], limit: int, picture: Path | None) -> None:
    config: TaskConfig | TrainingData
    if "task" in settings:
        config = _with_vocabulary(
            from_dict(TaskConfig, settings["task"], "config.task"), settings.get("init_from")
        )
    else:
        data = settings.get("data", dataclasses.asdict(DataConfig()))
        config = from_dict(TrainingData, data, "config.data")
    with quiet_imports():
        # Only here, so that --help and wrong settings need no TensorFlow.
        from spade_jax.data.preview.classes import look_at_classes
        from spade_jax.data.preview.pairs import look_at_pairs
        from spade_jax.data.preview.picture import draw_lengths
        from spade_jax.data.preview.text import look_at_text
        from spade_jax.data.sources import check_sources
    from rich.console import Console

    with Console(stderr=True).status("reading the data"):
        if isinstance(config, TaskConfig):
            sets = look_at_pairs(config, limit)
        elif isinstance(config, ClassificationDataConfig):
            sets = look_at_classes(config, limit)
        else:
            assert isinstance(config, TextConfig)
            check_sources(config.sources, "train")
            check_sources(config.sources, "validation")
            sets = look_at_text(config, limit)
    for seen in sets:
        print(seen.title + ("" if seen.whole else " (more with --limit)"))
        for line in (*seen.describe(), *seen.describe_examples()):
            print(f"  {line}")
    if picture is not None:
        draw_lengths(sets, picture)
        print(f"lengths: {picture}")


def _with_vocabulary(task: TaskConfig, init_from: Any) -> TaskConfig:
    """The task with the vocabulary that its run would have.

    Raises:
      ConfigError: it names none, nor a run that has one.
    """
    with quiet_imports():
        # Only here, for they need JAX.
        from spade_jax.runs.open import open_run
        from spade_jax.training.initial import resolve_vocabulary

    needs_run = task.vocabulary is None and isinstance(init_from, str) and init_from
    return resolve_vocabulary(task, open_run(Path(init_from), "init_from") if needs_run else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
