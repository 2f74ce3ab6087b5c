"""What a classifier reads, as a frozen dataclass that knows no framework."""

import dataclasses
import math
from typing import Annotated, ClassVar, Literal

from spade_jax.config import (
    MAX_LENGTH,
    ClassifierConfig,
    ModelConfig,
    Range,
    Seed,
    check_fields,
    of_kind,
    require,
)
from spade_jax.data.config import TrainingData
from spade_jax.objectives.classification_batch import (
    ClassificationBatch,
    PairBatch,
    ScalarBatch,
    TokenBatch,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Source = Literal["table", "tfds", "cifar10", "image_folder", "pathfinder"]
Encoding = Literal["bytes", "characters", "listops", "pixels", "intensities"]

IMAGE_ENCODINGS = ("pixels", "intensities")
# ListOps has no other symbols: a parenthesis of its files only shows how the tree was made.
LISTOPS_SYMBOLS = (*map(str, range(10)), "[MIN", "[MAX", "[MED", "[SM", "]")
# Sizes of the vocabularies that do not depend on the data; 0 is padding in each.
VOCABULARIES = {"bytes": 1 + 256, "listops": 1 + len(LISTOPS_SYMBOLS), "intensities": 1 + 256}
_TEXT_SOURCES = ("table", "tfds")
_IMAGE_SOURCES = ("tfds", "cifar10", "image_folder", "pathfinder")

# Of rows that are held out.
Share = Annotated[float, Range(0, 1, below=True)]


@dataclasses.dataclass(frozen=True)
class ClassificationDataConfig(TrainingData, kind="classification"):
    """Examples, their classes, and how they become sequences of tokens or numbers.

    Attributes:
      source: "table" is rows of TSV, CSV, JSON lines or Parquet files; "tfds" a prepared TensorFlow
        Datasets data set; "cifar10" the files of CIFAR-10 as published, of its Python or its
        binary version; "image_folder" PNG or JPEG files in a folder for each class; "pathfinder"
        a folder of the Long Range Arena's Pathfinder, such as `curv_contour_length_14`.
      train, validation, test: paths or globs, several separated by commas or in a tuple; of "tfds"
        splits or slices of one, such as "train[:90%]".
      name: of "tfds": name, configuration and version, such as "cifar10:3.0.2".
      data_dir: of "tfds": the directory it was prepared in; None is TFDS's own default.
      header: names of the columns of TSV or CSV files whose first line does not have them.
      inputs: the column or feature that is classified; two where their relation is.
      target: the column or feature that holds the class.
      classes: how many there are.
      labels: their names, in the order of their numbers; empty: labels are numbers, from 0, and of
        an "image_folder" the names of its folders, sorted.
      encoding: of text, "bytes" (UTF-8 bytes plus 1), "characters" (those that occur at least
        `min_count` times in the training data; others are one token in common) or "listops" (the
        symbols of ListOps); of images in grey, row by row, "pixels" (numbers, normalised) or
        "intensities" (tokens, 0 to 255 plus 1).
      min_count: of "characters".
      alphabet: the "characters", each once; None takes them from the training data. A run keeps
        those that it found.
      length: tokens or pixels of a sequence; what is longer is cut off.
      mean, std: "pixels" are (x / 255 - mean) / std.
      validation_share, test_share: of the training rows, held out; by their contents and
        `split_seed`, so that a row stays where it is when others come.
      split_seed: of what is held out.
      validate_on_test: the test set is the validation set, as the literature has it where no
        validation set was published; a best step chosen so is chosen on the test set.
      seed: of shuffling.
    """

    MODEL: ClassVar[str] = "classifier"

    source: Source = "table"
    train: str | tuple[str, ...] = ""
    validation: str | tuple[str, ...] = ""
    test: str | tuple[str, ...] = ""
    name: str | None = None
    data_dir: str | None = None
    header: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("text",)
    target: str = "label"
    classes: Annotated[int, Range(2, 2**20)] = 2
    labels: tuple[str, ...] = ()
    encoding: Encoding = "bytes"
    min_count: Annotated[int, Range(1, 2**31 - 1)] = 15
    alphabet: str | None = None
    length: Annotated[int, Range(1, MAX_LENGTH)] = 4096
    mean: Annotated[float, Range(-1e6, 1e6)] = 0.5
    std: Annotated[float, Range(1e-6, 1e6)] = 0.5
    validation_share: Share = 0.0
    test_share: Share = 0.0
    split_seed: Seed = 0
    validate_on_test: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        self._check_source()
        self._check_encoding()
        self._check_splits()

    def _check_source(self) -> None:
        require(
            bool(self.patterns("train")),
            "data.train",
            self.train,
            f'must name what to read for source "{self.source}"',
        )
        require(
            (self.source == "tfds") == bool(self.name),
            "data.name",
            self.name,
            'must be set for source "tfds", such as "cifar10:3.0.2", and only then',
        )
        for setting in ("data_dir", "header"):
            source = "tfds" if setting == "data_dir" else "table"
            require(
                self.source == source or not getattr(self, setting),
                f"data.{setting}",
                getattr(self, setting),
                f'is of source "{source}" only',
            )
        require(
            len({*self.header}) == len(self.header),
            "data.header",
            self.header,
            "must name each column once",
        )
        require(
            not self.labels or len({*self.labels}) == len(self.labels) == self.classes,
            "data.labels",
            self.labels,
            f"must be as many different names as there are data.classes = {self.classes}, or none",
        )

    def _check_encoding(self) -> None:
        images = self.encoding in IMAGE_ENCODINGS
        sources = _IMAGE_SOURCES if images else _TEXT_SOURCES
        require(
            self.source in sources,
            "data.encoding",
            self.encoding,
            f"is of sources {', '.join(sources)}, not of {self.source}",
        )
        require(
            self.alphabet is None or self.encoding == "characters",
            "data.alphabet",
            self.alphabet,
            'must be None with another encoding than "characters"',
        )
        require(
            len({*(self.alphabet or "")}) == len(self.alphabet or ""),
            "data.alphabet",
            self.alphabet,
            "must have each character once",
        )
        most = 1 if images else 2
        require(
            1 <= len(self.inputs) <= most,
            "data.inputs",
            self.inputs,
            "must name one feature" if images else "must name one column, or two of a pair",
        )
        require(
            not images or math.isqrt(self.length) ** 2 == self.length,
            "data.length",
            self.length,
            "must be the pixels of a square image, such as 1024 of 32 x 32",
        )

    def _check_splits(self) -> None:
        require(
            self.validation_share + self.test_share < 1,
            "data.test_share",
            self.test_share,
            f"must leave something beside data.validation_share = {self.validation_share}",
        )
        require(
            not (self.patterns("test") and self.test_share),
            "data.test_share",
            self.test_share,
            "must be 0 where data.test names a test set",
        )
        ways = (bool(self.patterns("validation")), self.validation_share > 0, self.validate_on_test)
        require(
            sum(ways) == 1,
            "data.validation",
            self.validation,
            "must name what to validate on, or else data.validation_share be above 0, or "
            "data.validate_on_test be True; one of the three",
        )
        require(
            not self.validate_on_test or self.has_test,
            "data.validate_on_test",
            True,
            "needs data.test, or data.test_share above 0",
        )

    def patterns(self, split: Split) -> tuple[str, ...]:
        """The paths, globs or TFDS splits of one split, one by one."""
        value = getattr(self, split)
        items = value.split(",") if isinstance(value, str) else value
        return tuple(item.strip() for item in items if item.strip())

    def check_model(self, model: ModelConfig) -> None:
        super().check_model(model)
        classifier = of_kind(model, ClassifierConfig)
        require(
            classifier.classes == self.classes,
            "model.classes",
            classifier.classes,
            f"must be data.classes = {self.classes}",
        )
        require(
            (classifier.pair is not None) == (self.batch is PairBatch),
            "model.pair",
            classifier.pair,
            f"must be {'set' if self.batch is PairBatch else 'None'}, for data.inputs names "
            f"{len(self.inputs)} column(s)",
        )
        size = classifier.vocab_size
        if self.tokens is None:
            require(size is None, "model.vocab_size", size, 'must be None with encoding "pixels"')
            std, right = classifier.embedding_std, "must be None: numbers have no embedding"
            require(std is None, "model.embedding_std", std, right)
            return
        require(
            size is None or size >= self.tokens,
            "model.vocab_size",
            size,
            f'must be at least {self.tokens}, the tokens of data.encoding "{self.encoding}"',
        )

    @property
    def has_test(self) -> bool:
        return bool(self.patterns("test")) or self.test_share > 0

    @property
    def tokens(self) -> int | None:
        """How many the encoding has, of "characters" as far as their alphabet is known; None for
        numbers."""
        if self.encoding == "pixels":
            return None
        return VOCABULARIES.get(self.encoding, 2 + len(self.alphabet or ""))

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def side(self) -> int:
        """Pixels of a row and of a column of an image."""
        return math.isqrt(self.length)

    @property
    def batch(self) -> type[ClassificationBatch]:
        """What batches hold, `length` inputs in each row."""
        if self.encoding == "pixels":
            return ScalarBatch
        return PairBatch if len(self.inputs) == 2 else TokenBatch
