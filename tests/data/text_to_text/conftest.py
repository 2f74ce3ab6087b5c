"""Tables of sums, and RTE as TFDS has it."""

import json

import pytest
from prepared_rte import prepare_rte
from reading_pairs import BYTES

from spade_jax.data.task_config import TaskConfig


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """40 sums to train on, sorted by their targets, and 7 to evaluate on."""
    directory = tmp_path_factory.mktemp("tables")
    for name, count in (("train", 40), ("validation", 7)):
        rows = [json.dumps({"question": f"{i} + {i}", "answer": 2 * i}) for i in range(count)]
        (directory / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return directory


@pytest.fixture(scope="session")
def config(tables):
    return TaskConfig(
        train=f"{tables}/train.jsonl",
        validation=f"{tables}/validation.jsonl",
        inputs=("question",),
        target="answer",
        prefix="add: ",
        input_length=32,
        target_length=8,
        **BYTES,
    )


@pytest.fixture(scope="session")
def rte(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepare_rte(directory)
    return TaskConfig("rte", data_dir=str(directory), input_length=80, target_length=20, **BYTES)
