"""What a vocabulary makes of the texts of a task: what it cannot write, and what it changes."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from spade_jax.config import require
from spade_jax.data.config import DataError
from spade_jax.data.in_words import count_longer
from spade_jax.data.metrics import CORRELATIONS, ROUGE, finite_number
from spade_jax.data.text_to_text.formats import RowError
from spade_jax.data.text_to_text.task import TextToText
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.data.words import has_words

_EXAMPLES = 3
_SHOWN = 40


def check_labels(tasks: Iterable[TextToText], vocabulary: Vocabulary, target_length: int) -> None:
    """Whether a model can write the labels of tasks, each as it stands and none cut off.

    Raises:
      DataError: one that it cannot.
    """
    for task in tasks:
        for label in task.labels:
            try:
                written = vocabulary.rewritten(label)
            except DataError as error:
                raise DataError(f"task.labels = {label!r}: {error}") from None
            if written != label:
                same = [o for o in task.labels if o != label and vocabulary.rewritten(o) == written]
                also = f", as it does {same[0]!r}" if same else ""
                raise DataError(
                    f"task.labels = {label!r}: the vocabulary writes this as {written!r}{also}; "
                    "must be a word that it can write as it stands"
                )
        lengths = {label: len(vocabulary.tokens(label)) + 1 for label in task.labels}
        longest = max(lengths, key=lengths.__getitem__, default="")
        require(
            lengths.get(longest, 0) <= target_length,
            "task.target_length",
            target_length,
            f"must be at least {lengths.get(longest)} for the label {longest!r} and its end",
        )


def check_words(target: str, task: TextToText) -> None:
    """Raises RowError for a target without a word where ROUGE is measured."""
    if {*ROUGE} & {*task.metrics} and not has_words(target):
        raise RowError(
            f"target {target!r:.60} holds no word, a letter or digit at least, as ROUGE needs"
        )


def check_measured(target: str, task: TextToText, vocabulary: Vocabulary, length: int) -> None:
    """Whether who writes a target as well as the vocabulary can is measured as perfect.

    Args:
      length: the most tokens of a target, its end included.

    Raises:
      RowError: a target without a word for ROUGE, or that the vocabulary leaves none; a number that
        does not stay what it is.
    """
    check_words(target, task)
    if {*ROUGE} & {*task.metrics} and not has_words(vocabulary.rewritten(target)):
        raise RowError(f"target {target!r:.60} has no word that the vocabulary can write")
    if {*CORRELATIONS} & {*task.metrics}:
        written = vocabulary.text(vocabulary.tokens(target)[: length - 1])
        if finite_number(written) != finite_number(target):
            raise RowError(
                f"number {target!r:.60} is written {written!r:.60} in the {length} tokens of "
                "task.target_length; must stay the number it is"
            )


@dataclasses.dataclass
class Tally:
    """How many texts, and the first of them: as they are, and as the vocabulary writes them."""

    count: int = 0
    examples: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, text: str, written: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((text, written))

    def __str__(self) -> str:
        return "; ".join(f"{a!r} -> {b!r}" for a, b in (_excerpts(*e) for e in self.examples))


def _excerpts(text: str, written: str) -> tuple[str, str]:
    """Both from shortly before the place where they part."""
    pairs = enumerate(zip(text, written))
    parting = next((i for i, (a, b) in pairs if a != b), min(len(text), len(written)))
    begin = max(0, parting - _SHOWN // 4) if max(len(text), len(written)) > _SHOWN else 0

    def excerpt(text: str) -> str:
        end = begin + _SHOWN
        return "…" * (begin > 0) + text[begin:end] + "…" * (end < len(text))

    return excerpt(text), excerpt(written)


class TokenPair(NamedTuple):
    """An example as a model reads it.

    Attributes:
      inputs, targets: token ids, their ends included, cut off where too long.
      reference: the target, uncut, as the vocabulary writes it: what predictions are compared with.
    """

    inputs: list[int]
    targets: list[int]
    reference: str


@dataclasses.dataclass
class Losses:
    """What a vocabulary takes from the pairs of a set.

    Attributes:
      unknown_inputs, unknown_targets: those with characters that it lacks.
      changed_targets: those that it cannot write as they stand, white space around them aside.
    """

    unknown_inputs: Tally = dataclasses.field(default_factory=Tally)
    unknown_targets: Tally = dataclasses.field(default_factory=Tally)
    changed_targets: Tally = dataclasses.field(default_factory=Tally)

    def sentences(self) -> list[str]:
        """How many of each and some of them; none where nothing is lost."""
        kinds = (
            (self.unknown_inputs, "inputs hold characters that the vocabulary lacks"),
            (self.unknown_targets, "targets hold characters that the vocabulary lacks"),
            (
                self.changed_targets,
                "targets are changed by the vocabulary, and compared as changed",
            ),
        )
        return [f"{tally.count:,} {words}: {tally}" for tally, words in kinds if tally.count]


@dataclasses.dataclass
class PairTokenizer:
    """Makes tokens of pairs, and counts what is lost on the way.

    Attributes:
      input_length, target_length: the most tokens of each, their ends included.
      input_lengths, target_lengths: tokens of each pair, their ends included, before any is cut.
      unknown_inputs, unknown_targets: how many of these tokens the vocabulary does not know.
    """

    vocabulary: Vocabulary
    input_length: int
    target_length: int
    input_lengths: list[int] = dataclasses.field(default_factory=list)
    target_lengths: list[int] = dataclasses.field(default_factory=list)
    unknown_inputs: int = 0
    unknown_targets: int = 0
    losses: Losses = dataclasses.field(default_factory=Losses)

    @property
    def cut_inputs(self) -> int:
        """How many were too long."""
        return count_longer(self.input_lengths, self.input_length)

    @property
    def cut_targets(self) -> int:
        """How many were too long."""
        return count_longer(self.target_lengths, self.target_length)

    def __call__(self, text: str, target: str) -> TokenPair:
        """The tokens of a pair.

        Raises:
          DataError: a sentinel that the vocabulary lacks.
        """
        vocabulary, losses = self.vocabulary, self.losses
        inputs, targets = vocabulary.tokens(text), vocabulary.tokens(target)
        target, reference = target.strip(), vocabulary.text(targets)
        self.input_lengths.append(len(inputs) + 1)
        self.target_lengths.append(len(targets) + 1)
        self.unknown_inputs += inputs.count(vocabulary.unk_id)
        self.unknown_targets += targets.count(vocabulary.unk_id)
        if vocabulary.unk_id in inputs:
            losses.unknown_inputs.add(text.strip(), vocabulary.text(inputs))
        if vocabulary.unk_id in targets:
            losses.unknown_targets.add(target, reference)
        if reference != target:
            losses.changed_targets.add(target, reference)
        return TokenPair(
            vocabulary.ended(inputs, self.input_length),
            vocabulary.ended(targets, self.target_length),
            reference,
        )
