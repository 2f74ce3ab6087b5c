"""A corpus of a few files, and a data set of TFDS."""

from pathlib import Path

import pytest
from corpora import make_documents, write_lines

from spade_jax.data.config import DataConfig, SourceConfig


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Three training files of 12 documents each (seeds 0, 1, 2), one of validation (seed 9)."""
    directory = tmp_path_factory.mktemp("corpus")
    write_lines(directory / "train0.txt", make_documents(12, 0))
    write_lines(directory / "train1.txt.gz", make_documents(12, 1))
    write_lines(directory / "train2.txt", make_documents(12, 2))
    write_lines(directory / "validation.txt", make_documents(7, 9))
    return directory


@pytest.fixture(scope="session")
def direct(corpus) -> DataConfig:
    """36 training documents of some 240 bytes: about 130 segments in an epoch."""
    source = SourceConfig(
        kind="text", train=f"{corpus}/train*", validation=f"{corpus}/validation.txt"
    )
    return DataConfig(
        sources=(source,), input_length=64, document_shuffle_buffer=8, shuffle_buffer=16, seed=3
    )


@pytest.fixture(scope="session")
def config(direct) -> DataConfig:
    return direct


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> SourceConfig:
    """A data set with the layout of C4's, prepared on this machine."""
    import tensorflow_datasets as tfds

    from spade_jax.data._tensorflow import tf

    directory = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        config="en",
        version="3.1.0",
        data_dir=directory,
        description="Made by a test.",
        features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "label": tfds.features.Scalar(tf.int64)}
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                {"text": make_documents(count, count), "label": list(range(count))}
            )
            for split, count in (("train", 20), ("validation", 5))
        },
    )
    return SourceConfig(
        kind="tfds",
        name="tiny/en:3.1.0",
        data_dir=str(directory),
        train="train",
        validation="validation",
    )
