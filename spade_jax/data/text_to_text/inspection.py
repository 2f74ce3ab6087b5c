"""What a person should know of a task's examples before they are used."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.examples import (
    load_table,
    load_table_with_gaps,
    make_tokenizer,
    read_pairs,
)
from spade_jax.data.text_to_text.splits import Part, find_builder, parts
from spade_jax.data.text_to_text.task import SPLITS, Split
from spade_jax.data.text_to_text.vocabulary_coverage import Losses

# Training examples that are looked at to say how many are cut off, and for the baseline.
_EXAMINED = 10_000


@dataclasses.dataclass(frozen=True)
class Looked:
    """What is to be said of local tables before they are used.

    Attributes:
      part: whose tables they are.
      rows: how many they have.
      broken: where rows stand that are left out.
      repeated: of the splits before, how many of the rows have an input that is, letter by letter,
        one of theirs as well.
      losses: of test tables, what the vocabulary takes from them; of the others it is said where
        their examples are made tokens.
    """

    part: Part
    rows: int
    broken: list[str]
    repeated: dict[Split, int]
    losses: Losses


def look_through(config: TaskConfig, splits: Iterable[Split] = SPLITS) -> list[Looked]:
    """Reads all local tables of splits through.

    Raises:
      DataError: a row that makes no pair, or a share held out that lacks a class.
    """
    if config.holds_out:
        _check_held_out(config)
    looked = []
    inputs: dict[tuple[str, Split], set[str]] = collections.defaultdict(set)
    for split in splits:
        for part in parts(config, split):
            if not isinstance(part.source, tuple):
                continue
            broken: list[str] = []
            if split == "train":
                pairs, broken = load_table_with_gaps(part, config)
            else:
                pairs = list(read_pairs(part, config, broken))
            repeated = {
                before: sum(pair.input in texts for pair in pairs)
                for (task, before), texts in inputs.items()
                if task == part.task.name and before != split
            }
            inputs[part.task.name, split].update(pair.input for pair in pairs)
            tokenizer = make_tokenizer(config)
            for pair in pairs if split == "test" else ():
                tokenizer(pair.input, pair.target)
            looked.append(Looked(part, len(pairs), broken, repeated, tokenizer.losses))
    return looked


def _check_held_out(config: TaskConfig) -> None:
    """Raises DataError where one side of what is held out has no row, or none of a class."""
    for train, validation in zip(parts(config, "train"), parts(config, "validation")):
        sides = {
            "train": collections.Counter(pair.target for pair in load_table(train, config)),
            "validate": collections.Counter(p.target for p in read_pairs(validation, config)),
        }
        both = sides["train"] + sides["validate"]
        for purpose, found in sides.items():
            missing = [label for label in train.task.labels if both[label] and not found[label]]
            if found and not missing:
                continue
            of = f" of {missing[0]!r}" if missing else ""
            own = both[missing[0]] if missing else both.total()
            raise DataError(
                f"task.validation = {config.validation!r}: leaves none of the {own:,} rows{of} of "
                f"{train.name} to {purpose} on; must be another share, come with another "
                "task.split_seed, or name a table"
            )


@dataclasses.dataclass(frozen=True)
class Examined:
    """What a look at the training examples of one part finds.

    Attributes:
      examples: how many there are.
      looked_at: how many of them were tokenised.
      cut_inputs, cut_targets: those of them that are too long.
      input_lengths, target_lengths: their tokens, ends included, before any is cut.
      commonest: the most common target, as the vocabulary writes it.
      target_words: of a target, on average.
      losses: what the vocabulary takes from those looked at.
    """

    part: Part
    examples: int
    looked_at: int
    cut_inputs: int
    cut_targets: int
    commonest: str
    target_words: float
    input_lengths: list[int] = dataclasses.field(default_factory=list)
    target_lengths: list[int] = dataclasses.field(default_factory=list)
    losses: Losses = dataclasses.field(default_factory=Losses)


def examine(config: TaskConfig) -> list[Examined]:
    """Looks at the training examples of each task: all of local tables, the first of TFDS's.

    Raises:
      DataError: a row that makes no pair.
    """
    found = []
    for part in parts(config, "train"):
        if isinstance(part.source, str):
            pairs = list(itertools.islice(read_pairs(part, config), _EXAMINED))
            examples = find_builder(part.task, config).info.splits[part.source].num_examples
        else:
            pairs = load_table(part, config)
            examples = len(pairs)
        # Evenly spread, for tables are often sorted.
        sample = pairs[:: max(1, -(-len(pairs) // _EXAMINED))]
        tokenizer = make_tokenizer(config)
        for pair in sample:
            tokenizer(pair.input, pair.target)
        targets = collections.Counter(pair.target for pair in pairs)
        commonest = max(targets, key=targets.__getitem__, default="")
        found.append(
            Examined(
                part,
                examples,
                looked_at=len(sample),
                cut_inputs=tokenizer.cut_inputs,
                cut_targets=tokenizer.cut_targets,
                commonest=tokenizer.vocabulary.rewritten(commonest),
                target_words=sum(len(p.target.split()) for p in pairs) / max(len(pairs), 1),
                input_lengths=tokenizer.input_lengths,
                target_lengths=tokenizer.target_lengths,
                losses=tokenizer.losses,
            )
        )
    return found
