"""Settings of classification: what cannot be is said in a sentence."""

import pytest

from spade_jax.config import ConfigError, from_dict
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.config import TrainingData
from spade_jax.objectives.classification_batch import PairBatch, ScalarBatch, TokenBatch

TEXTS = {"train": "a.tsv", "validation": "b.tsv"}
IMAGES = {**TEXTS, "source": "cifar10", "encoding": "pixels", "length": 1024}


def test_the_batch_is_what_is_encoded():
    assert ClassificationDataConfig(**TEXTS).batch is TokenBatch
    assert ClassificationDataConfig(**TEXTS, inputs=("a", "b")).batch is PairBatch
    images = ClassificationDataConfig(**IMAGES)
    assert images.batch is ScalarBatch
    assert images.side == 32
    tokens = ClassificationDataConfig(**{**IMAGES, "encoding": "intensities"})
    assert tokens.batch is TokenBatch


def test_it_is_a_kind_of_training_data():
    config = from_dict(TrainingData, {"kind": "classification", **TEXTS, "length": 9}, "data")
    assert config == ClassificationDataConfig(**TEXTS, length=9)
    assert config.lengths == (9,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"data.train = '': must name what to read for source \"table\""),
        ({**TEXTS, "source": "tabel"}, "data.source = 'tabel': must be one of .* mean 'table'"),
        ({**TEXTS, "name": "x"}, "data.name = 'x': must be set for source \"tfds\""),
        ({**TEXTS, "data_dir": "x"}, "data.data_dir = 'x': is of source \"tfds\" only"),
        ({**TEXTS, "header": ("a", "a")}, "data.header = .*: must name each column once"),
        ({**TEXTS, "labels": ("a",)}, "data.labels = .*: must be as many .* data.classes = 2"),
        (
            {**TEXTS, "encoding": "pixels"},
            "data.encoding = 'pixels': is of sources .* not of table",
        ),
        ({**IMAGES, "encoding": "bytes"}, "data.encoding = 'bytes': .* not of cifar10"),
        ({**TEXTS, "inputs": ()}, r"data.inputs = \(\): must name one column, or two"),
        ({**IMAGES, "inputs": ("a", "b")}, "data.inputs = .*: must name one feature"),
        ({**IMAGES, "length": 1000}, "data.length = 1000: must be the pixels of a square image"),
        ({**TEXTS, "length": 0}, "data.length = 0: must be at least 1"),
        ({"train": "a.tsv"}, "data.validation = '': must name what .* one of the three"),
        ({**TEXTS, "validation_share": 0.1}, "data.validation = 'b.tsv': .* one of the three"),
        ({"train": "a.tsv", "validate_on_test": True}, "data.validate_on_test = True: needs"),
        ({**TEXTS, "test": "c.tsv", "test_share": 0.1}, "data.test_share = 0.1: must be 0 where"),
        (
            {"train": "a.tsv", "validation_share": 0.5, "test_share": 0.5},
            "data.test_share = 0.5: must leave something",
        ),
    ],
)
def test_what_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        ClassificationDataConfig(**settings)
