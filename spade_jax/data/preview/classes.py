"""A look at the examples of a classifier."""

import itertools
from collections.abc import Iterator

import numpy as np

from spade_jax.data.classification.config import (
    IMAGE_ENCODINGS,
    SPLITS,
    ClassificationDataConfig,
)
from spade_jax.data.classification.encoders import UNKNOWN, Characters, Encoder, make_encoder
from spade_jax.data.classification.rows import (
    Row,
    check_splits,
    folder_labels,
    read_rows,
    split_of,
)
from spade_jax.data.config import DataError
from spade_jax.data.preview.seen import EXAMPLES, Seen, Sequences


def look_at_classes(config: ClassificationDataConfig, limit: int) -> list[Seen]:
    """The first rows of each split.

    Args:
      limit: the most rows that are read for one; what is held out of the training rows is among
        these. An alphabet is taken from them, too.

    Raises:
      DataError: they cannot be read.
    """
    check_splits(config)
    encoder = make_encoder(config, _training_texts(config, limit))
    names = folder_labels(config) if config.source == "image_folder" else config.labels
    names = names or tuple(map(str, range(config.classes)))
    columns = config.inputs if len(config.inputs) > 1 else ("inputs",)
    sets: dict[str, Seen] = {}
    for split in SPLITS:
        sequences = [Sequences(column, "data.length", config.length) for column in columns]
        sets[split] = Seen(split, "rows", sequences, [*sets.values()])
        sets[split].classes.update(dict.fromkeys(names, 0))
    for split in SPLITS:
        rows = read_rows(config, split) if config.patterns(split) else iter(())
        for row in itertools.islice(rows, limit):
            own = split_of(row, config) if split == "train" else split
            _add(sets[own], row, encoder, names)
        if next(rows, None) is not None:
            # What is held out of the training rows is not all there, either.
            for own in SPLITS if split == "train" else (split,):
                sets[own].whole &= own != split and bool(config.patterns(own))
    return [seen for seen in sets.values() if seen.rows]


def _training_texts(config: ClassificationDataConfig, limit: int) -> Iterator[str]:
    if config.encoding in IMAGE_ENCODINGS:
        return
    for row in itertools.islice(read_rows(config, "train"), limit):
        if split_of(row, config) == "train":
            yield from row.inputs


def _add(seen: Seen, row: Row, encoder: Encoder, names: tuple[str, ...]) -> None:
    """Counts a row.

    Raises:
      DataError: it cannot be encoded.
    """
    seen.add(*row.contents())
    seen.classes[names[row.label]] += 1
    texts = []
    for sequences, value in zip(seen.sequences, row.inputs):
        try:
            tokens = encoder(value)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None
        unknown = np.count_nonzero(tokens == UNKNOWN) if isinstance(encoder, Characters) else 0
        sequences.add(len(tokens), int(unknown))
        text = encoder.text(tokens[: sequences.bound])
        texts.append((sequences.name, text or f"an image of {len(tokens):,} pixels"))
    if len(seen.examples) < EXAMPLES:
        seen.examples.append([*texts, ("class", names[row.label])])
