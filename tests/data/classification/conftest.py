"""A table of texts, as settings name it."""

import json

import pytest

from spade_jax.data.classification.config import ClassificationDataConfig


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> ClassificationDataConfig:
    """50 reviews to train on, 7 to validate and 5 to test on: some 14 bytes each, of 3 classes."""
    directory = tmp_path_factory.mktemp("texts")
    paths = {}
    for name, count in (("train", 50), ("validation", 7), ("test", 5)):
        rows = [{"text": f"{name} number {i}", "label": i % 3} for i in range(count)]
        path = directory / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths[name] = str(path)
    return ClassificationDataConfig(**paths, classes=3, length=24, seed=5)
