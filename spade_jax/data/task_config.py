"""What a fine-tuned model reads and writes, as a frozen dataclass that knows no framework."""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Any

from spade_jax.config import MAX_LENGTH, ConfigError, Range, Seed, check_fields, nearest, require
from spade_jax.data import metrics
from spade_jax.data.config import ExtraIds, ShuffleBuffer
from spade_jax.data.text_to_text.formats import label_word, labelled_fields, number, prefixed, text
from spade_jax.data.text_to_text.registry import MIXTURES, TASKS
from spade_jax.data.text_to_text.task import SPLITS, Split, TextToText

LOCAL = "local_pairs"
_SHARE = re.compile(r"[0-9]+(\.[0-9]*)?%")

Length = Annotated[int, Range(2, MAX_LENGTH)]


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """A task, where its rows come from, and how they become tokens.

    Attributes:
      name: one of the tasks, such as "rte" or "cnn_dailymail"; "glue" is the mixture of all of
        GLUE, by number of examples; "local_pairs" is made of the settings below.
      train, validation, test: tables (TSV, CSV, JSON lines, Parquet) with the task's columns:
        paths or globs, several separated by commas or in a tuple. "{task}" stands for the name of
        each task of a mixture, "{part}" for MNLI's "_matched" and "_mismatched" and for nothing
        elsewhere. All empty: the task's data set in TFDS. A `validation` such as "10%" is no table
        but that share of the rows of `train`, held out.
      split_seed: of what is held out; by it and the input of a row alone, so that a row stays where
        it is when others come.
      data_dir: the directory that TFDS prepared it in; None is TFDS's own default.
      header: names of the columns of TSV or CSV files whose first line does not have them.
      inputs, target: of "local_pairs", the columns that inputs and targets are made of. Of several
        inputs each is headed by its name, `question: … context: …`.
      prefix: of "local_pairs", stands before each input.
      labels: of "local_pairs", all targets there are; unless they are numbers themselves, a class
        number counts from 0 through them.
      metrics: of "local_pairs", what to measure; empty is accuracy with labels, else ROUGE.
      vocabulary, extra_ids: as in pre-training; None is the checkpoint's.
      input_length, target_length: tokens, their ends included; what is longer is cut off.
      pack: several short examples in one row of a training batch, which neither attention nor
        the state space model mixes.
      shuffle_buffer: training examples of TFDS held back for shuffling; tables are shuffled whole.
      seed: of shuffling.
    """

    name: str = LOCAL
    train: str | tuple[str, ...] = ""
    validation: str | tuple[str, ...] = ""
    test: str | tuple[str, ...] = ""
    data_dir: str | None = None
    header: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    target: str = ""
    prefix: str = ""
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    vocabulary: str | None = None
    extra_ids: ExtraIds | None = None
    input_length: Length = 512
    target_length: Length = 64
    pack: bool = False
    shuffle_buffer: ShuffleBuffer = 2048
    seed: Seed = 0
    split_seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "task.")
        known = (LOCAL, *TASKS, *MIXTURES)
        if self.name not in known:
            raise ConfigError(f"task.name = {self.name!r}: no such task{nearest(self.name, known)}")
        if self.name == LOCAL:
            require(self.local, "task.train", self.train, f'must name a table for task "{LOCAL}"')
            for setting in ("inputs", "target"):
                value = getattr(self, setting)
                require(bool(value), f"task.{setting}", value, "must name a column of the tables")
            metrics.check(self.metrics, self.labels)
            require(
                len(set(self.labels)) == len(self.labels) != 1,
                "task.labels",
                self.labels,
                "must be at least two different words, or none",
            )
        else:
            for setting in ("inputs", "target", "prefix", "labels", "metrics"):
                value = getattr(self, setting)
                require(
                    not value,
                    f"task.{setting}",
                    value,
                    f'is of task "{LOCAL}" only; task {self.name!r} has its own',
                )
        self._check_share()
        require(
            len(set(self.header)) == len(self.header),
            "task.header",
            self.header,
            "must name each column once",
        )

    def _check_share(self) -> None:
        """Raises ConfigError for a share of nothing, or that leaves nothing."""
        if not self.holds_out:
            return
        require(
            0 < self.validation_share < 1,
            "task.validation",
            self.validation,
            "must be above 0% and below 100%, or name a table",
        )
        require(
            bool(self.patterns("train")),
            "task.validation",
            self.validation,
            "must be a split of TFDS's where task.train names no table: a share is of its rows",
        )

    @property
    def holds_out(self) -> bool:
        """Whether `validation` is a share of the training rows. No name of a table is one."""
        return isinstance(self.validation, str) and bool(_SHARE.fullmatch(self.validation.strip()))

    @property
    def validation_share(self) -> float:
        """Of the training rows, held out; 0 where `validation` names tables."""
        return float(str(self.validation).strip()[:-1]) / 100 if self.holds_out else 0.0

    @property
    def local(self) -> bool:
        """Whether rows come from local tables."""
        return any(self.patterns(split) for split in SPLITS)

    def patterns(self, split: Split) -> tuple[str, ...]:
        """The paths and globs of one split, one by one; none of a share that is held out."""
        if split == "validation" and self.holds_out:
            return ()
        value = getattr(self, split)
        items = value.split(",") if isinstance(value, str) else value
        return tuple(item.strip() for item in items if item.strip())

    @property
    def tasks(self) -> tuple[TextToText, ...]:
        """The task, or those of the mixture."""
        if self.name != LOCAL:
            return tuple(TASKS[name] for name in MIXTURES.get(self.name, (self.name,)))
        several = len(self.inputs) > 1
        where = f"column {self.target!r}:"
        write_target: Callable[[Any], str] = text
        if self.labels:
            write_target = label_word(self.labels, where)
        elif {"pearson", "spearman"} & {*self.metrics}:
            write_target = number(where)
        return (
            TextToText(
                LOCAL,
                self.inputs,
                self.target,
                labelled_fields(self.prefix.strip(), self.inputs)
                if several
                else prefixed(self.prefix, self.inputs[0]),
                write_target,
                self.metrics
                or (("accuracy",) if self.labels else ("rouge1", "rouge2", "rougeL", "rougeLsum")),
                self.labels,
                prefix=self.prefix,
            ),
        )
