"""What a person should know of the data before it is learned from or evaluated on."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from spade_jax.data.in_words import advise_length, describe_lengths
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet
from spade_jax.data.text_to_text.inspection import Examined, Looked
from spade_jax.data.text_to_text.splits import Part
from spade_jax.data.text_to_text.vocabulary_coverage import Losses


def describe_sets(
    task: TaskConfig,
    training: Sequence[Examined],
    validation: Sequence[EvaluationSet],
    console: Console,
) -> None:
    """How much data there is, and how much of it is cut off."""
    for found in training:
        of = "" if found.looked_at == found.examples else f" of {found.looked_at:,} of them"
        console.print(
            f"{found.part.name}: {found.examples:,} training examples;{of} {found.cut_inputs:,} "
            f"inputs are cut off at {task.input_length} tokens, {found.cut_targets:,} targets at "
            f"{task.target_length}"
        )
        for sentence in lengths_of(task, found):
            console.print(sentence)
        describe_losses(found.part, found.losses, console)
    for examples in validation:
        console.print(
            f"{examples.part.name}: {len(examples.pairs):,} validation examples; "
            f"{examples.cut_inputs:,} inputs are cut off, {examples.cut_targets:,} targets are "
            "longer than a prediction can be"
        )
        describe_losses(examples.part, examples.losses, console)


def lengths_of(task: TaskConfig, found: Examined) -> Iterator[str]:
    """How long training examples are, and what length would be better, in sentences."""
    yield (
        f"{found.part.name}: tokens of inputs {describe_lengths(found.input_lengths)}; of targets "
        f"{describe_lengths(found.target_lengths)}"
    )
    whole = found.looked_at == found.examples
    for what, lengths, setting, length in (
        ("inputs", found.input_lengths, "task.input_length", task.input_length),
        ("targets", found.target_lengths, "task.target_length", task.target_length),
    ):
        if (advice := advise_length(lengths, what, setting, length, whole=whole)) is not None:
            yield f"{found.part.name}: {advice}"


def table_of_sets(
    training: Sequence[Examined], validation: Sequence[EvaluationSet]
) -> list[dict[str, str | int]]:
    """Examples, and how many are cut off, as rows for facts.json."""
    rows: list[dict[str, str | int]] = [
        {
            "set": found.part.name,
            "split": "train",
            "examples": found.examples,
            "looked at": found.looked_at,
            "inputs cut off": found.cut_inputs,
            "targets cut off": found.cut_targets,
        }
        for found in training
    ]
    return rows + [
        {
            "set": examples.part.name,
            "split": "validation, during training",
            "examples": len(examples.pairs),
            "looked at": len(examples.pairs),
            "inputs cut off": examples.cut_inputs,
            "targets cut off": examples.cut_targets,
        }
        for examples in validation
    ]


def describe_losses(part: Part, losses: Losses, console: Console) -> None:
    """What the vocabulary takes from a set."""
    for sentence in losses_of(part, losses):
        # Texts of people: what looks like markup in them is none.
        console.print(sentence, markup=False, highlight=False)


def losses_of(part: Part, losses: Losses) -> list[str]:
    """The same as sentences."""
    return [f"{part.name}, {part.split}: {sentence}" for sentence in losses.sentences()]


def describe_tables(looked: Sequence[Looked]) -> Iterator[str]:
    """What of local tables a person should know: rows left out, and rows of several sets."""
    for found in looked:
        name = f"{found.part.name}, {found.part.split}"
        if found.broken:
            more = f" and {len(found.broken) - 3:,} more" if len(found.broken) > 3 else ""
            yield (
                f"{name}: {len(found.broken):,} rows have fewer columns than the header and are "
                f"left out, as TFDS leaves them out ({'; '.join(found.broken[:3])}{more})"
            )
        for before, count in found.repeated.items():
            if count:
                yield (
                    f"{name}: the inputs of {count:,} of {found.rows:,} rows are, letter by "
                    f"letter, those of rows of task.{before} as well"
                )
