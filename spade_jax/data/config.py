"""What the model reads, as frozen dataclasses that import neither TensorFlow nor seqio."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from spade_jax.config import (
    MAX_LENGTH,
    ConfigError,
    Kinds,
    ModelConfig,
    Range,
    Seed,
    check_fields,
    require,
)

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

Weight = Annotated[float, Range(1e-12, 1e12)]
# Of examples held back for shuffling, which TensorFlow makes room for at once.
ShuffleBuffer = Annotated[int, Range(1, 2**24)]
ExtraIds = Annotated[int, Range(1, MAX_LENGTH)]


class DataError(ConfigError):
    """Data that cannot be read as the configuration says: names the file or setting at fault."""


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Where documents come from.

    Attributes:
      kind: "sotu" is the text that comes with this package (State of the Union addresses).
        "text" has one document on each line, "files" one in each file, "jsonl" one JSON object
        on each line; all three are UTF-8, and gzip where the name ends in ".gz". "tfrecord" holds
        `tf.train.Example`s; "tfds" is a prepared TensorFlow Datasets data set.
      train, validation: paths or globs, several separated by commas or in a tuple; of "tfds", the
        name of a split or a slice of one, such as "train[:99%]". Empty for "sotu".
      field: the JSON field, Example feature or TFDS feature that holds the text.
      name: of "tfds": name, configuration and version, such as "c4/en:3.1.0"; without a version,
        the newest that is there.
      data_dir: of "tfds": the directory it was prepared in; None is TFDS's own default.
      weight: share of this source in a mixture of several, relative to the others'.
    """

    kind: Literal["sotu", "text", "files", "jsonl", "tfrecord", "tfds"] = "sotu"
    train: str | tuple[str, ...] = ""
    validation: str | tuple[str, ...] = ""
    field: str = "text"
    name: str | None = None
    data_dir: str | None = None
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "data.sources.")
        if self.kind == "sotu":
            for split in ("train", "validation"):
                require(
                    not self.patterns(split),
                    f"data.sources.{split}",
                    getattr(self, split),
                    'must be empty for kind "sotu", whose files come with the package; for text '
                    "of your own, set data.sources.kind as well",
                )
        else:
            require(
                bool(self.patterns("train")),
                "data.sources.train",
                self.train,
                f'must name what to read for kind "{self.kind}"',
            )
        require(
            (self.kind == "tfds") == bool(self.name),
            "data.sources.name",
            self.name,
            'must be set for kind "tfds", such as "c4/en:3.1.0", and only then',
        )
        require(
            self.kind == "tfds" or self.data_dir is None,
            "data.sources.data_dir",
            self.data_dir,
            f'is of kind "tfds" only; kind "{self.kind}" names its files in train and validation',
        )

    def patterns(self, split: Split) -> tuple[str, ...]:
        """The paths, globs or TFDS splits of one split, one by one."""
        value = getattr(self, split)
        items = value.split(",") if isinstance(value, str) else value
        return tuple(item.strip() for item in items if item.strip())


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """One setting of T5's span corruption (Raffel et al. 2020, section 3.3.4).

    Attributes:
      noise_density: share of tokens that are masked.
      mean_span_length: tokens per masked span, on average.
      weight: share of this denoiser in a mixture of several, relative to the others'.
    """

    noise_density: Annotated[float, Range(0, 1, above=True, below=True)] = 0.15
    mean_span_length: Annotated[float, Range(1, MAX_LENGTH)] = 3.0
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "data.denoisers.")
        require(
            self.noise_density * (1.0 + 1.0 / self.mean_span_length) < 1.0 - 1e-9,
            "data.denoisers.mean_span_length",
            self.mean_span_length,
            "must be above noise_density / (1 - noise_density) = "
            f"{self.noise_density / (1.0 - self.noise_density):.3g}, or the masked spans touch",
        )

    def count_noise(self, length: int) -> tuple[int, int]:
        """How many of `length` >= 2 tokens are masked, and in how many spans."""
        noise = min(max(round(length * self.noise_density), 1), length - 1)
        spans = max(round(noise / self.mean_span_length), 1)
        return noise, min(spans, length - noise)

    def lengths(self, length: int) -> tuple[int, int]:
        """Lengths of inputs and targets, both with their EOS, made from `length` tokens.

        Inputs keep length - noise tokens and a sentinel for each span; targets hold the noise
        behind the same sentinels.
        """
        noise, spans = self.count_noise(length)
        return length - noise + spans + 1, noise + spans + 1

    def segment_length(self, input_length: int) -> int:
        """The most tokens whose corrupted inputs, with EOS, fit `input_length` (512: 568)."""
        fits = input_length - 1  # never too long: n tokens make at most n + 1 inputs
        beyond = 2 * input_length
        while self.lengths(beyond)[0] <= input_length:
            fits, beyond = beyond, 2 * beyond
        # Inputs never become shorter with more tokens.
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if self.lengths(middle)[0] <= input_length:
                fits = middle
            else:
                beyond = middle
        return fits


@dataclasses.dataclass(frozen=True)
class TrainingData(Kinds, family="kind of data", default="span_corruption"):
    """What a model learns from: everything that decides what a batch holds.

    Attributes:
      MODEL: the kind of models that learn from it.
    """

    MODEL: ClassVar[str] = ""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of a batch's sequences, as `objectives.batch` has them, the longest that there are."""
        raise NotImplementedError

    def check_model(self, model: ModelConfig) -> None:
        """Raises ConfigError where a model cannot learn from it."""
        require(
            model.kind == self.MODEL,
            "model.kind",
            model.kind,
            f"must be {self.MODEL!r}, which is what learns from data.kind = {self.kind!r}",
        )
        model.require_lengths(*self.lengths)


@dataclasses.dataclass(frozen=True)
class TextConfig(TrainingData):
    """Documents, and the vocabulary that makes tokens of them.

    Attributes:
      sources: documents; several are mixed by weight.
      vocabulary: "bytes", or the path of a SentencePiece `.model`.
      extra_ids: sentinels at the end of the vocabulary, numbered from its last id downwards.
      document_shuffle_buffer: documents of each source held back for shuffling. They are part of
        a saved position, as are the segments.
      shuffle_buffer: segments held back for shuffling, once they are what a model learns from.
      seed: of all shuffling and masking in training. Validation has a fixed seed of its own.
    """

    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    vocabulary: str = "bytes"
    extra_ids: Annotated[int, Range(0, MAX_LENGTH)] = 100
    document_shuffle_buffer: ShuffleBuffer = 64
    shuffle_buffer: ShuffleBuffer = 2048
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        require(len(self.sources) > 0, "data.sources", (), "must have an entry")


@dataclasses.dataclass(frozen=True)
class TextBlocksConfig(TextConfig, kind="text_blocks"):
    """Blocks of text, of which each token is predicted from those before.

    Attributes:
      input_length: tokens of a block.
      across_documents: documents are joined end to end, each with an EOS, and cut into blocks; a
        block's first token is predicted from the one before it. Otherwise a document has blocks of
        its own, the last of which is filled up.
    """

    MODEL: ClassVar[str] = "decoder_only"

    input_length: Annotated[int, Range(2, MAX_LENGTH)] = 512
    across_documents: bool = True

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.input_length,)


@dataclasses.dataclass(frozen=True)
class DataConfig(TextConfig, kind="span_corruption"):
    """Text whose masked spans are filled in.

    Attributes:
      input_length: tokens of the encoder, EOS included; segments are cut to fill it exactly.
      target_length: tokens of the decoder; None is what the denoisers need.
      denoisers: settings of span corruption; several are mixed by weight.
      cache: a directory that `python -m spade_jax.data.cache` made of these sources, to read
        segments from at random; None reads the sources. With it, the shuffle buffers are of no
        account.
    """

    MODEL: ClassVar[str] = "encoder_decoder"

    input_length: Annotated[int, Range(3, MAX_LENGTH)] = 512
    target_length: (
        Annotated[int, Range(1, MAX_LENGTH, "for just what the denoisers need")] | None
    ) = None
    denoisers: tuple[DenoiserConfig, ...] = (DenoiserConfig(),)
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.denoisers) > 0, "data.denoisers", (), "must have an entry")
        require(self.cache != "", "data.cache", self.cache, "must be a directory, or None")
        for denoiser in self.denoisers:
            spans = denoiser.count_noise(denoiser.segment_length(self.input_length))[1]
            require(
                spans <= self.extra_ids,
                "data.extra_ids",
                self.extra_ids,
                f"must be at least {spans}, the masked spans of an input of {self.input_length} "
                f"tokens at noise_density {denoiser.noise_density} and mean_span_length "
                f"{denoiser.mean_span_length}: each has a sentinel of its own",
            )
        needed = max(d.lengths(d.segment_length(self.input_length))[1] for d in self.denoisers)
        require(
            needed <= MAX_LENGTH,
            "data.input_length",
            self.input_length,
            f"must be less with these data.denoisers, which make {needed} target tokens of it; at "
            f"most {MAX_LENGTH}",
        )
        require(
            self.target_length is None or self.target_length >= needed,
            "data.target_length",
            self.target_length,
            f"must be at least {needed}, which these denoisers make of an input of "
            f"{self.input_length} tokens, or None for just that",
        )

    @property
    def decoder_length(self) -> int:
        """Tokens of the decoder, EOS included: `target_length`, or the longest targets made."""
        return self.target_length or max(
            d.lengths(d.segment_length(self.input_length))[1] for d in self.denoisers
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.input_length, self.decoder_length
