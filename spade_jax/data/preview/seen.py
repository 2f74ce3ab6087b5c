"""What is counted of a set of data, and told in words."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

from spade_jax.data.digests import digest_row
from spade_jax.data.in_words import advise_length, count_longer, describe_classes, describe_lengths

# Of each set.
EXAMPLES = 3
# Of an example's text, in characters.
_SHOWN = 300


@dataclasses.dataclass
class Sequences:
    """One sequence of each row.

    Attributes:
      name: what they are called, such as "inputs".
      setting: the one that bounds them, and its value `bound`.
      bound: tokens that a model takes of one.
      are_cut: whether what is beyond is lost, and not read in another example.
      lengths: tokens of each.
      unknown: how many of all tokens stand for what the vocabulary lacks.
    """

    name: str
    setting: str
    bound: int
    are_cut: bool = True
    lengths: list[int] = dataclasses.field(default_factory=list)
    unknown: int = 0

    def add(self, length: int, unknown: int = 0) -> None:
        self.lengths.append(length)
        self.unknown += unknown

    def describe(self) -> str:
        total = sum(self.lengths)
        unknown = f"{self.unknown:,} ({self.unknown / total:.2%})" if self.unknown else "none"
        longer = count_longer(self.lengths, self.bound)
        share = f"{longer:,} ({longer / max(len(self.lengths), 1):.1%})"
        beyond = (
            f"cut at {self.setting} = {self.bound:,}"
            if self.are_cut
            else f"longer than the {self.bound:,} tokens of an example"
        )
        lengths = describe_lengths(self.lengths)
        return (
            f"{self.name}: {total:,} tokens, {unknown} unknown to the vocabulary; {lengths}; "
            f"{share} are {beyond}"
        )

    def advice(self, whole: bool) -> str | None:
        if not self.are_cut:
            return None
        return advise_length(self.lengths, self.name, self.setting, self.bound, whole=whole)


class Seen:
    """A set of data, as far as it was looked at.

    Args:
      name: such as "train".
      rows_are: such as "documents".
      sequences: those of each row.
      before: sets that should have no row in common with this one.

    Attributes:
      rows: how many were looked at.
      whole: whether these are all.
      classes: rows of each, in the order in which they should be told.
      examples: as a model reads them, in words: of each what its texts are and these.
      notes: what else there is to say.
    """

    def __init__(
        self,
        name: str,
        rows_are: str,
        sequences: Sequence[Sequences],
        before: Sequence["Seen"] = (),
    ):
        self.name, self.rows_are, self.sequences = name, rows_are, sequences
        self.rows, self.whole = 0, True
        self.classes: collections.Counter[str] = collections.Counter()
        self.examples: list[list[tuple[str, str]]] = []
        self.notes: list[str] = []
        self._before = before
        self._found: set[bytes] = set()
        self._repeated = 0
        self._shared: collections.Counter[str] = collections.Counter()

    def add(self, *contents: bytes) -> None:
        """Counts a row of these contents."""
        key = digest_row(contents, 16)
        self.rows += 1
        self._repeated += key in self._found
        self._found.add(key)
        self._shared.update(other.name for other in self._before if key in other._found)

    @property
    def title(self) -> str:
        first = "" if self.whole else "the first "
        return f"{self.name}: {first}{self.rows:,} {self.rows_are}"

    def describe(self) -> Iterator[str]:
        """All there is to say, a sentence for each thing but for examples."""
        yield from (sequences.describe() for sequences in self.sequences)
        if self.classes:
            yield f"classes: {describe_classes(self.classes)}"
        yield from self.notes
        yield from [*self._equal()] or [f"no {self.rows_are} come twice"]
        yield from self._advice()

    def brief(self) -> Iterator[str]:
        """The same in a line, and in one more each for what should be looked at."""
        first, *more = (sequences.describe() for sequences in self.sequences)
        yield f"{'; '.join((self.title, *self.notes))}; {first}"
        for sentence in (*more, *self._equal(), *self._advice()):
            yield f"{self.name}: {sentence}"

    def _advice(self) -> Iterator[str]:
        """Of what is trained on: other sets are read as that is."""
        if self._before:
            return
        for sequences in self.sequences:
            if (sentence := sequences.advice(self.whole)) is not None:
                yield sentence

    def _equal(self) -> Iterator[str]:
        if self._repeated:
            yield f"{self._repeated:,} {self.rows_are} are equal to one before"
        for name, count in self._shared.items():
            yield f"{count:,} {self.rows_are} are in {name} as well"

    def describe_examples(self) -> Iterator[str]:
        for number, texts in enumerate(self.examples, start=1):
            yield f"example {number}"
            width = max(len(what) for what, _ in texts)
            for what, text in texts:
                text = " ".join(text.split())
                yield f"  {what:{width}}  {text[:_SHOWN]}{'…' * (len(text) > _SHOWN)}"
