"""A share of one table that is held out: `task.validation='10%'`."""

import dataclasses
import random
import re

import pytest
from reading_pairs import BYTES, batches, texts

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.text_to_text.examples import read_pairs
from spade_jax.data.text_to_text.inspection import look_through
from spade_jax.data.text_to_text.splits import check_splits, digest_parts, parts

ROWS = [f"row {i},{'odd' if i % 2 else 'even'}" for i in range(200)]


def table(path, rows) -> TaskConfig:
    path.write_text("\n".join(("text,label", *rows)) + "\n")
    return TaskConfig(
        train=str(path),
        validation="10%",
        inputs=("text",),
        target="label",
        labels=("even", "odd"),
        input_length=16,
        target_length=8,
        **BYTES,
    )


def side(config, split) -> list[str]:
    return [pair.input for part in parts(config, split) for pair in read_pairs(part, config)]


def test_a_row_stays_where_it_is(tmp_path):
    config = table(tmp_path / "a.csv", ROWS)
    train, validation = side(config, "train"), side(config, "validation")
    assert sorted(train + validation) == sorted(row.partition(",")[0] for row in ROWS)
    assert 10 < len(validation) < 30
    more = [f"another {i},even" for i in range(100)] + ROWS[::-1]
    random.Random(0).shuffle(more)
    grown = table(tmp_path / "b.csv", more)
    assert sorted(t for t in side(grown, "validation") if t in train + validation) == sorted(
        validation
    )
    assert not {*side(grown, "train")} & {*side(grown, "validation")}


def test_the_seed_moves_it_and_equal_inputs_stay_together(tmp_path):
    twice = ROWS + [f"{row.partition(',')[0]},odd" for row in ROWS]
    config = table(tmp_path / "a.csv", twice)
    assert not {*side(config, "train")} & {*side(config, "validation")}
    other = dataclasses.replace(config, split_seed=1)
    assert {*side(other, "validation")} != {*side(config, "validation")}


def test_training_and_evaluation_read_their_own_side(tmp_path):
    config = table(tmp_path / "a.csv", ROWS)
    check_splits(config)
    assert [found.repeated for found in look_through(config)] == [{}, {"train": 0}]
    assert digest_parts(config, "validation") == digest_parts(config, "train")
    (held_out,) = evaluation_sets(config, "validation")
    train, validation = side(config, "train"), side(config, "validation")
    assert [pair.input for pair in held_out.pairs] == validation
    read = texts(config, batches(config, 5, len(train) // 5))
    assert {text for text, _ in read} <= {*train}
    assert len({text for text, _ in read}) > len(train) - 5


@pytest.mark.parametrize(
    ("share", "rows", "message"),
    [
        ("40%", [*ROWS, "alone,rare"], r"none of the 1 rows of 'rare' of local_pairs to "),
        ("0.001%", ROWS, "none of the 100 rows of 'even' of local_pairs to validate on; must be"),
        ("99.999%", ROWS, "none of the 100 rows of 'even' of local_pairs to train on; must be"),
    ],
)
def test_a_class_must_be_on_both_sides(tmp_path, share, rows, message):
    config = table(tmp_path / "a.csv", rows)
    config = dataclasses.replace(config, labels=("even", "odd", "rare"), validation=share)
    with pytest.raises(DataError, match=rf"^task.validation = '{share}': leaves {message}"):
        look_through(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": "0%"}, "'0%': must be above 0% and below 100%"),
        ({"validation": "100%"}, "'100%': must be above 0% and below 100%"),
        ({"name": "rte", "validation": "5%"}, "'5%': must be a split of TFDS's where"),
    ],
)
def test_shares_that_cannot_be_are_refused(settings, message):
    of = {} if "name" in settings else {"train": "a.csv", "inputs": ("a",), "target": "b"}
    with pytest.raises(ValueError, match=re.escape(f"task.validation = {message}")):
        TaskConfig(**settings, **of, **BYTES)
