"""Tasks as pairs of texts in T5's form (Raffel et al. 2020, appendix D).

A row maps the columns of a data set to strings, numbers or lists of strings. Nothing here imports
TensorFlow: rows come from TFDS and from local files alike.
"""

import dataclasses
import math
import re
import struct
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

Row = Mapping[str, Any]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class RowError(ValueError):
    """A row that makes no pair: says why; whoever reads rows adds where."""


def _alone(row: Row) -> Iterable[Row]:
    return (row,)


@dataclasses.dataclass(frozen=True)
class TextToText:
    """One task.

    Attributes:
      name: what configurations call it.
      columns: those that the input is made of.
      target: the column that the target is made of.
      write_input: row -> the input.
      write_target: value of the target column -> the target.
      metrics: names in `spade_jax.data.metrics`.
      labels: all targets there are, by class number; empty where targets are free text.
      aliases: other names that columns have in published files, by the names here.
      tfds: TFDS name, configuration and version; None where there is none.
      splits: TFDS splits of each of our splits; several are evaluated apart.
      submission: the file that the GLUE leaderboard takes, for each test split.
      expand: cuts a row of the files into several rows.
      prefix: what inputs of free text begin with, beside what the data holds.
      may_be_empty: columns that are empty in a few published rows, which T5 keeps.
      leaves_out_broken: whether rows of fewer columns than the header, of which a published file
        has some, are left out, as TFDS leaves them out.
    """

    name: str
    columns: tuple[str, ...]
    target: str
    write_input: Callable[[Row], str]
    write_target: Callable[[Any], str]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    tfds: str | None = None
    splits: Mapping[Split, tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: {split: (split,) for split in SPLITS}
    )
    submission: tuple[str, ...] = ()
    expand: Callable[[Row], Iterable[Row]] = _alone
    prefix: str = ""
    may_be_empty: tuple[str, ...] = ()
    leaves_out_broken: bool = False

    def part_names(self, split: Split) -> tuple[str, ...]:
        """What the parts of a split are called: "rte"; "mnli_matched" and "mnli_mismatched"."""
        names = self.splits.get(split, ())
        if len(names) < 2:
            return (self.name,) * len(names)
        return tuple(self.name + name.removeprefix(split) for name in names)

    def pair(self, row: Row, *, labelled: bool = True) -> tuple[str, str]:
        """The input and the target of a row.

        Args:
          labelled: whether the row must have a target; where it need not, and has none, the target
            is "".

        Raises:
          RowError: a column that is missing or empty, or a label that is none of `labels`.
        """
        found = {}
        for column in (*self.columns, self.target):
            known = next((n for n in (column, *self.aliases.get(column, ())) if n in row), None)
            if known is None:
                if column == self.target and not labelled:
                    break
                there = ", ".join(map(repr, row)) or "none at all"
                raise RowError(f"has no column {column!r}, but {there}")
            found[column] = row[known]
            if column in self.columns and _is_empty(found[column]):
                if column not in self.may_be_empty:
                    raise RowError(f"column {column!r} is empty")
                found[column] = ""
        target = found.get(self.target)
        if _is_empty(target) or (not labelled and self._hides(target)):
            if labelled:
                raise RowError(f"column {self.target!r} is empty")
            return self.write_input(found), ""
        return self.write_input(found), self.write_target(target)

    def _hides(self, target: Any) -> bool:
        """Whether it is the -1 for a secret label of a test set, and no label or text itself."""
        if isinstance(target, list) or self.write_target is text or "-1" in self.labels:
            return False
        return str(target) in ("-1", "-1.0")


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)  # What pandas writes into Parquet for a cell without a number.
    return value is None or (isinstance(value, list) and all(map(_is_empty, value)))


def text(value: Any) -> str:
    """A cell as text; whole numbers without a decimal point.

    Raises:
      RowError: a list, a mapping or bytes.
    """
    if isinstance(value, list | dict | bytes):
        raise RowError(f"{value!r:.60} is not a text")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def labelled_fields(prefix: str, columns: Sequence[str]) -> Callable[[Row], str]:
    """`cola sentence: …`, `rte sentence1: … sentence2: …`: T5's inputs of several columns."""

    def write(row: Row) -> str:
        fields = (f"{column}: {text(row[column]).strip()}" for column in columns)
        return " ".join((prefix, *fields) if prefix else fields)

    return write


def prefixed(prefix: str, column: str) -> Callable[[Row], str]:
    """The prefix and the text of one column."""
    return lambda row: prefix + text(row[column])


def number(where: str) -> Callable[[Any], str]:
    """A finite number, as it stands."""

    def write(value: Any) -> str:
        word = text(value).strip()
        if not _is_number(word) or not math.isfinite(float(word)):
            raise RowError(f"{where} {word!r:.60} is not a finite number, as correlations need")
        return word

    return write


def label_word(labels: tuple[str, ...], where: str) -> Callable[[Any], str]:
    """A label word itself or, unless labels are numbers, a class number, as a label word."""
    words = {label: label for label in labels}
    if not any(map(_is_number, labels)):
        words |= {str(number): label for number, label in enumerate(labels)}

    def write(value: Any) -> str:
        word = text(value).strip()
        if word in words:
            return words[word]
        raise RowError(
            f"{where} {word!r} is no label; must be one of {', '.join(map(repr, labels))}"
        )

    return write


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def rounded_score(value: Any) -> str:
    """STS-B's similarity, 0 to 5, to the nearest 0.2, as T5 writes it: `3.8`.

    In float32, as T5 does, for ties are common: 3.1 becomes 3.2, but in float64 the float32 that is
    nearest to 3.1 would become 3.0.
    """
    try:
        score = _float32(float(value))
    except (TypeError, ValueError, OverflowError):
        score = -1.0
    if not 0 <= score <= 5:
        raise RowError(f"score {value!r:.60} is not a number from 0 to 5")
    return f"{round(_float32(score * 5)) / 5:.1f}"


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def dialogue(row: Row) -> str:
    """MediaSum's turns, each behind its speaker: `summarize: BALDWIN: Good evening. …`."""
    speakers, turns = row["speaker"], row["utt"]
    if not _is_texts(speakers) or not _is_texts(turns) or len(speakers) != len(turns):
        raise RowError("columns 'speaker' and 'utt' must be lists of equally many texts")
    return "summarize: " + " ".join(f"{s}: {t}" for s, t in zip(speakers, turns))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _glue(
    name: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    submission: str | tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    **more: Any,
) -> TextToText:
    settings: dict[str, Any] = {
        "target": "label",
        "write_input": labelled_fields(name, columns),
        "write_target": label_word(labels, "label") if labels else rounded_score,
        "tfds": f"glue/{name}:2.0.0",
        "submission": (submission,) if isinstance(submission, str) else submission,
    }
    return TextToText(name, columns, metrics=metrics, labels=labels, **settings | more)


def _summary(
    name: str, document: str, summary: str, tfds: str, validation: str = "validation", **more: Any
) -> TextToText:
    settings: dict[str, Any] = {
        "write_input": prefixed("summarize: ", document),
        "may_be_empty": (document,),
    }
    return TextToText(
        name,
        more.pop("columns", (document,)),
        summary,
        write_target=text,
        metrics=("rouge1", "rouge2", "rougeL", "rougeLsum"),
        tfds=tfds,
        splits={"train": ("train",), "validation": (validation,), "test": ("test",)},
        prefix="summarize: ",
        **settings | more,
    )


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_LABELS = ("entailment", "neutral", "contradiction")

GLUE = (
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), "CoLA.tsv", ("matthews",)),
    _glue("sst2", ("sentence",), ("negative", "positive"), "SST-2.tsv"),
    _glue(
        "mrpc",
        _SENTENCES,
        ("not_equivalent", "equivalent"),
        "MRPC.tsv",
        ("f1", "accuracy"),
        aliases={
            "sentence1": ("#1 String",),
            "sentence2": ("#2 String",),
            "label": ("Quality",),
        },
    ),
    _glue(
        "qqp",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "QQP.tsv",
        ("f1", "accuracy"),
        aliases={"label": ("is_duplicate",)},
        may_be_empty=("question2",),
        leaves_out_broken=True,
    ),
    _glue(
        "stsb", _SENTENCES, (), "STS-B.tsv", ("pearson", "spearman"), aliases={"label": ("score",)}
    ),
    _glue(
        "mnli",
        ("hypothesis", "premise"),
        _MNLI_LABELS,
        ("MNLI-m.tsv", "MNLI-mm.tsv"),
        aliases={
            "premise": ("sentence1",),
            "hypothesis": ("sentence2",),
            "label": ("gold_label",),
        },
        splits={
            "train": ("train",),
            "validation": ("validation_matched", "validation_mismatched"),
            "test": ("test_matched", "test_mismatched"),
        },
    ),
    _glue("qnli", ("question", "sentence"), _ENTAILMENT, "QNLI.tsv"),
    _glue("rte", _SENTENCES, _ENTAILMENT, "RTE.tsv"),
    _glue("wnli", _SENTENCES, _ENTAILMENT[::-1], "WNLI.tsv"),
)

# GLUE's diagnostic set: written as MNLI's, whose model predicts it (Raffel et al. 2020).
AX = _glue(
    "ax",
    ("hypothesis", "premise"),
    _MNLI_LABELS,
    "AX.tsv",
    aliases={"premise": ("sentence1",), "hypothesis": ("sentence2",)},
    write_input=labelled_fields("mnli", ("hypothesis", "premise")),
    splits={"test": ("test",)},
)

SUMMARIES = (
    _summary("cnn_dailymail", "article", "highlights", "cnn_dailymail:3.4.0"),
    _summary("arxiv", "article", "abstract", "scientific_papers/arxiv:1.1.1"),
    _summary("pubmed", "article", "abstract", "scientific_papers/pubmed:1.1.1"),
    _summary("multi_news", "document", "summary", "multi_news:2.1.0"),
    _summary(
        "media_sum",
        "utt",
        "summary",
        "media_sum:1.0.0",
        validation="val",
        columns=("speaker", "utt"),
        write_input=dialogue,
        may_be_empty=(),
    ),
)

_YEAR = re.compile(r"\b1[789]\d\d\b")


def passages_with_a_year(row: Row) -> Iterator[Row]:
    """Those passages of an address, of about a line, that name one year."""
    if not isinstance(row.get("text"), str):
        yield row  # For `TextToText.pair` to say what is wrong with it.
        return
    for passage in textwrap.wrap(row["text"], 80, break_long_words=False, break_on_hyphens=False):
        years = set(_YEAR.findall(passage))
        if len(years) == 1:
            yield {"text": passage, "named": years.pop()}


# Which year does a passage name? A task on the text that comes with the package.
SOTU_YEAR = TextToText(
    "sotu_year",
    ("text",),
    "named",
    prefixed("year: ", "text"),
    text,
    ("accuracy",),
    splits={"train": ("train",), "validation": ("validation",)},
    expand=passages_with_a_year,
)

TASKS: Mapping[str, TextToText] = {task.name: task for task in (*GLUE, AX, *SUMMARIES, SOTU_YEAR)}
# All nine tasks of GLUE; T5's mixture leaves WNLI out.
MIXTURES: Mapping[str, tuple[str, ...]] = {"glue": tuple(task.name for task in GLUE)}
