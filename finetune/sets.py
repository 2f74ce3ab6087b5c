"""What a fine-tuning run learns from and is measured by, looked through before it trains."""

import dataclasses
import itertools
from collections.abc import Sequence

from rich.console import Console

from finetune.config import FinetuneConfig
from finetune.describe import (
    describe_losses,
    describe_sets,
    describe_tables,
    lengths_of,
    losses_of,
)
from finetune.evaluation import metric_names
from spade_jax.config import require, require_choice
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet, evaluation_sets
from spade_jax.data.text_to_text.inspection import Examined, Looked, examine, look_through
from spade_jax.data.text_to_text.splits import check_splits, digest_parts
from spade_jax.data.text_to_text.task import Split


@dataclasses.dataclass(frozen=True)
class Sets:
    """What is known of the data before training.

    Attributes:
      looked: what is in local tables.
      training: the parts of the training data.
      validation: what is evaluated on the way.
    """

    looked: Sequence[Looked]
    training: Sequence[Examined]
    validation: Sequence[EvaluationSet]

    def describe(self, task: TaskConfig, console: Console) -> None:
        """Tells of all of them."""
        describe_sets(task, self.training, self.validation, console)
        for line in describe_tables(self.looked):
            console.print(line)
        for found in self.looked:
            describe_losses(found.part, found.losses, console)

    def notes(self, task: TaskConfig) -> list[str]:
        """What else there is to say of them, in sentences."""
        lengths = [lengths_of(task, found) for found in self.training]
        losses = [losses_of(found.part, found.losses) for found in self.training]
        losses += [losses_of(examples.part, examples.losses) for examples in self.validation]
        losses += [losses_of(found.part, found.losses) for found in self.looked]
        return [
            *itertools.chain(*lengths),
            *describe_tables(self.looked),
            *itertools.chain(*losses),
        ]


def read_sets(config: FinetuneConfig, console: Console) -> Sets:
    """Looks through all data, that of the end as well.

    Raises:
      ConfigError: there is no validation set, or none with the metric that decides.
    """
    with console.status("reading the data"):
        # What is wrong with the test set must not show at the end only.
        check_splits(config.task)
        looked = look_through(config.task)
        training = examine(config.task)
        validation = evaluation_sets(config.task, "validation", config.eval_examples)
    require(
        bool(validation),
        "task.validation",
        config.task.validation,
        "must name a table to evaluate on",
    )
    if config.train.best_metric is not None:
        require_choice("train.best_metric", config.train.best_metric, metric_names(validation))
    return Sets(looked, training, validation)


def contents_of(config: FinetuneConfig) -> dict[str, dict[str, str]]:
    """What the run learns from and is measured by: of each setting the files, with digests."""
    splits: tuple[Split, ...] = ("train", "validation")
    return {
        f"task.{split}": {
            name: value
            for part in digest_parts(config.task, split).values()
            for name, value in part.items()
        }
        for split in splits
    }
