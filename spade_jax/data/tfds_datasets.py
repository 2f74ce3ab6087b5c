"""TensorFlow Datasets that were prepared before: found by name and version, never fetched."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import seqio
import tensorflow_datasets as tfds
from etils import epath

from spade_jax.config import nearest
from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataError, SourceConfig, Split

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")
_FEATURES = "features.json"


class SplitRange(NamedTuple):
    """Examples of a whole split, by its name: from `start` up to `stop`."""

    split: str
    start: int
    stop: int


def find_builder(name: str, data_dir: str | None, settings: str) -> tfds.core.DatasetBuilder:
    """The data set that a name, configuration and version lead to; without a version the newest.

    Reads the directory alone: `tfds.load` would look for a data set that is absent in the
    network, and for minutes.

    Args:
      data_dir: None is TFDS's own default.
      settings: where `data_dir` is set, for the message.

    Raises:
      DataError: nothing of that name and version is there, or it would bring code of its own.
    """
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR)
    wanted = name
    name, _, version = name.partition(":")
    if not version and (root / name).is_dir():
        version = max(
            (v.name for v in (root / name).iterdir() if _VERSION.fullmatch(v.name)),
            key=lambda v: [int(number) for number in v.split(".")],
            default="",
        )
    directory = root / name / version
    if not version or not (directory / "dataset_info.json").exists():
        raise DataError(
            f"{settings}.name = {wanted!r}: no data set in {directory}; "
            f"{settings}.data_dir must be the directory it was prepared in, "
            f"with `tfds build {name}` for instance"
        )
    for feature in _feature_classes(directory):
        # TFDS would import the module that is named, from wherever Python finds one.
        if not feature.startswith("tensorflow_datasets."):
            raise DataError(
                f"{directory / _FEATURES}: names the feature class {feature!r}; must name classes "
                "of tensorflow_datasets alone, for no other code is run"
            )
    return tfds.builder_from_directory(directory)


def _feature_classes(directory: epath.Path) -> Iterator[str]:
    """The classes that a data set's description of its features names."""
    path = directory / _FEATURES
    try:
        waiting: list[Any] = [json.loads(path.read_text())]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); prepare the data set again"
        ) from None
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            # The names of TFDS 4.6 and later, and of earlier ones.
            names = [value.get("pythonClassName"), value.get("python_class_name")]
            names += [value.get("type")] if "content" in value else []
            yield from (name for name in names if isinstance(name, str))
            # Some features are described by JSON within a string.
            if isinstance(inner := value.get("json"), str):
                try:
                    waiting.append(json.loads(inner))
                except (ValueError, RecursionError):
                    raise DataError(
                        f"{path}: is damaged (JSON in a string); prepare the data set again"
                    ) from None


def digest_split(info: tfds.core.DatasetInfo, name: str) -> str:
    """A digest of what a data set says of one of its splits."""
    return hashlib.sha256(info.splits[name].to_proto().SerializeToString()).hexdigest()[:16]


def load_builder(config: SourceConfig) -> tfds.core.DatasetBuilder:
    """The data set of a source.

    Raises:
      DataError: nothing of that name and version is there, or no such text feature.
    """
    builder = find_builder(str(config.name), config.data_dir, "data.sources")
    features = builder.info.features
    texts = [key for key in features if features[key].tf_dtype == tf.string]
    if config.field not in texts:
        raise DataError(
            f"data.sources.field = {config.field!r}: {config.name} has no such text feature"
            + nearest(config.field, texts)
        )
    return builder


def read_texts(
    config: SourceConfig,
    split: Split,
    *,
    shuffle_files: bool,
    seed: int | None,
    shard_info: seqio.ShardInfo,
) -> tf.data.Dataset:
    """The text feature, bytes [], of this shard's equal part of a split."""
    part = tfds.even_splits(_spec(config, split), shard_info.num_shards)[shard_info.index]
    dataset = load_builder(config).as_dataset(
        split=part,
        shuffle_files=shuffle_files,
        read_config=tfds.ReadConfig(shuffle_seed=seed, try_autocache=False),
    )
    return dataset.map(lambda example: example[config.field])


def split_files(config: SourceConfig, split: Split) -> list[str]:
    """The files of those splits of TFDS that one of ours is made of."""
    builder = load_builder(config)
    names = dict.fromkeys(name for name, _, _ in _ranges(builder, config, split))
    return [str(path) for name in names for path in builder.info.splits[name].filepaths]


def digest_splits(config: SourceConfig, split: Split) -> dict[str, str]:
    """The splits of TFDS that one of ours is made of, each with a digest."""
    builder = load_builder(config)
    info = builder.info
    names = dict.fromkeys(name for name, _, _ in _ranges(builder, config, split))
    return {f"{info.full_name} {name}": digest_split(info, name) for name in names}


def check_splits(config: SourceConfig) -> None:
    """Raises DataError unless the splits exist and are disjoint."""
    builder = load_builder(config)
    train = _ranges(builder, config, "train")
    validation = _ranges(builder, config, "validation") if config.patterns("validation") else []
    if overlap(train, validation):
        raise DataError(
            f"data.sources.validation = {config.validation!r}: overlaps data.sources.train = "
            f"{config.train!r}; a document must be in one split only"
        )


def count_examples(config: SourceConfig, split: Split) -> int:
    """Examples in a split."""
    ranges = _ranges(load_builder(config), config, split)
    return sum(stop - start for _, start, stop in ranges)


def _spec(config: SourceConfig, split: Split) -> str:
    return "+".join(config.patterns(split))


def _ranges(
    builder: tfds.core.DatasetBuilder, config: SourceConfig, split: Split
) -> list[SplitRange]:
    value = getattr(config, split)
    return split_ranges(
        builder, _spec(config, split), f"data.sources.{split} = {value!r}", str(config.name)
    )


def split_ranges(
    builder: tfds.core.DatasetBuilder, spec: str, setting: str, name: str
) -> list[SplitRange]:
    """What a split or slice stands for.

    Args:
      setting: and its value, for the message.
      name: of the data set.

    Raises:
      DataError: there is no such split.
    """
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    try:
        ranges = tfds.core.ReadInstruction.from_spec(spec).to_absolute(builder.info.splits)
    except Exception:  # tfds has no kind of its own for a split that is not there.
        known = ", ".join(f"{split} ({size} examples)" for split, size in sizes.items())
        raise DataError(
            f"{setting}: no such split of {name}; must be one, or a slice of one, of {known}"
        ) from None
    return [
        SplitRange(r.splitname, r.from_ or 0, sizes[r.splitname] if r.to is None else r.to)
        for r in ranges
    ]


def overlap(ones: list[SplitRange], others: list[SplitRange]) -> bool:
    """Whether an example is in both."""
    return any(
        one.split == other.split and max(one.start, other.start) < min(one.stop, other.stop)
        for one, other in itertools.product(ones, others)
    )
