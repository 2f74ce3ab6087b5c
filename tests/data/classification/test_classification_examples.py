"""Examples in memory: encoded, cut, held out, told apart."""

import dataclasses
import json

import numpy as np
import pytest
from images_made import noise, write_cifar10, write_class_folders

from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.encoders import make_encoder
from spade_jax.data.classification.examples import encode, load_data, with_names
from spade_jax.data.classification.images import grey
from spade_jax.data.config import DataError
from spade_jax.objectives.classification_batch import PairBatch, ScalarBatch, TokenBatch


def test_texts_are_filled_up_and_cut(texts):
    config = dataclasses.replace(texts, length=15)
    data = load_data(config)
    batch = TokenBatch.of(data.splits["train"].batch(np.array([3, 12])))
    assert batch.inputs.dtype == np.int32
    np.testing.assert_array_equal(batch.inputs[0], [*(b + 1 for b in b"train number 3"), 0])
    np.testing.assert_array_equal(batch.inputs[1], [b + 1 for b in b"train number 12"])
    np.testing.assert_array_equal(batch.labels, [0, 0])
    np.testing.assert_array_equal(batch.weights, [1, 1])
    assert [*data.describe()] == [
        "train: 50 examples (0 17, 1 17, 2 16).",
        "validation: 7 examples (0 3, 1 2, 2 2), 7 of them cut to data.length = 15.",
        "test: 5 examples (0 2, 1 2, 2 1).",
        "train: tokens of an input p50 15, p95 15, p99 15, longest 15.",
    ]


def test_the_types_of_batches_are_known_before_the_data(texts):
    examples = load_data(texts).splits["train"]
    arrays = examples.batch(np.arange(4))
    types = texts.batch.types(4, [texts.length])
    assert types == {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


def test_pairs(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tab\tc\n0\td\tefg\n")
    config = ClassificationDataConfig(
        train=f"{tmp_path}/a.tsv",
        test=f"{tmp_path}/a.tsv",
        validate_on_test=True,
        header=("label", "one", "other"),
        inputs=("one", "other"),
        length=2,
    )
    with pytest.raises(DataError, match=r"^data.test = .* is in data.train as well"):
        load_data(config)
    (tmp_path / "b.tsv").write_text("1\ta\tb\n")
    data = load_data(dataclasses.replace(config, test=f"{tmp_path}/b.tsv"))
    batch = PairBatch.of(data.splits["train"].batch(np.arange(2)))
    np.testing.assert_array_equal(batch.inputs, [[98, 99], [101, 0]])
    np.testing.assert_array_equal(batch.others, [[100, 0], [102, 103]])
    assert [*data.describe()] == [
        "train: 2 examples (0 1, 1 1), 1 of them cut to data.length = 2.",
        "validation: 1 examples (0 0, 1 1), which are the test set (data.validate_on_test).",
        "test: 1 examples (0 0, 1 1).",
        "train: tokens of an input p50 1, p95 3, p99 3, longest 3.",
        "train: 1 inputs are cut at 2 tokens: p95 is 3; data.length=16 would hold 95%.",
    ]


def test_pixels_are_normalised_and_black_is_no_padding(tmp_path):
    images = noise(4)
    images[0] = 0
    write_cifar10(tmp_path, images, [0, 1, 0, 1])
    config = ClassificationDataConfig(
        source="cifar10",
        train=f"{tmp_path}/data_batch_1",
        validation=f"{tmp_path}/data_batch_1.bin",
        encoding="pixels",
        length=1024,
        mean=0.48,
        std=0.24,
    )
    examples = load_data(config).splits["train"]
    batch = ScalarBatch.of(examples.batch(np.arange(4)))
    expected = (np.stack([grey(image, "") for image in images]) / 255 - 0.48) / 0.24
    assert batch.inputs.dtype == np.float32
    np.testing.assert_allclose(batch.inputs, expected.reshape(4, -1), atol=1e-6)
    np.testing.assert_array_equal(batch.lengths, [1024] * 4)
    tokens = load_data(dataclasses.replace(config, encoding="intensities"))
    assert tokens.encoder.size == 257
    first = tokens.splits["train"].batch(np.array([0]))["inputs"]
    np.testing.assert_array_equal(first, np.ones((1, 1024), np.int32))


def write(path, rows):
    path.write_text("".join(json.dumps({"text": text, "label": 0}) + "\n" for text in rows))
    return str(path)


def held_out(config) -> dict[str, set[bytes]]:
    """The texts of each split."""
    splits = load_data(config).splits
    rows = {name: s.batch(np.arange(len(s)))["inputs"] for name, s in splits.items()}
    return {
        name: {bytes(int(token) - 1 for token in row if token) for row in tokens}
        for name, tokens in rows.items()
    }


def test_what_is_held_out_stays_where_it_is(tmp_path):
    rows = [f"row {i}" for i in range(400)]
    config = ClassificationDataConfig(
        train=write(tmp_path / "a.jsonl", rows), validation_share=0.2, test_share=0.1, length=16
    )
    before = held_out(config)
    assert sum(map(len, before.values())) == 400
    # Within four standard deviations.
    assert 48 <= len(before["validation"]) <= 112
    assert 16 <= len(before["test"]) <= 64
    more = [*(f"new {i}" for i in range(100)), *reversed(rows), "row 7"]
    after = held_out(dataclasses.replace(config, train=write(tmp_path / "b.jsonl", more)))
    for name, texts in before.items():
        assert {text for text in after[name] if text.startswith(b"row")} == texts
    other = held_out(dataclasses.replace(config, split_seed=1))
    assert other["test"] != before["test"]
    larger = held_out(dataclasses.replace(config, validation_share=0.3))
    assert larger["test"] == before["test"]
    assert larger["validation"] > before["validation"]
    with pytest.raises(DataError, match=r"^data.test_share = 1e-09: gives no example; must"):
        load_data(dataclasses.replace(config, test_share=1e-9))


def test_characters_come_from_the_training_data_alone(texts):
    config = dataclasses.replace(texts, encoding="characters", min_count=50, length=12)
    encoder = load_data(config).encoder
    # What occurs in every one of 50 texts, within the length: "train number".
    assert encoder.alphabet == " abeimnrtu"
    assert encoder.size == 12


def test_digests_tell_data_apart_and_not_where_it_lies(texts, tmp_path):
    contents = load_data(texts).contents()
    assert set(contents) == {"data.train", "data.validation", "data.test"}
    copy = tmp_path / "copy.jsonl"
    with open(texts.train) as file:
        lines = file.read()
    copy.write_text(lines)
    moved = dataclasses.replace(texts, train=str(copy))
    assert load_data(moved).contents() == contents
    copy.write_text(lines.replace('"label": 2', '"label": 1', 1))
    changed = load_data(moved).contents()
    assert changed["data.train"] != contents["data.train"]
    assert changed["data.test"] == contents["data.test"]


def test_what_cannot_be_encoded_says_where_it_stands(texts):
    with pytest.raises(DataError, match=r"train.jsonl, line 1: has 'train'; must have 0, 1"):
        load_data(dataclasses.replace(texts, encoding="listops"))


def test_what_is_left_to_the_data_is_kept(texts, tmp_path):
    config = dataclasses.replace(texts, encoding="characters", min_count=50)
    named = with_names(config)
    assert named.alphabet == " abeimnrtu"
    assert with_names(named) == named == dataclasses.replace(config, alphabet=named.alphabet)
    assert make_encoder(named).digest == load_data(config).encoder.digest

    write_class_folders(tmp_path, noise(4))
    folders = ClassificationDataConfig(
        source="image_folder",
        train=str(tmp_path),
        validation_share=0.5,
        encoding="pixels",
        length=1024,
    )
    assert with_names(folders).labels == ("cat", "dog")
    assert with_names(texts) == texts


def test_examples_of_no_known_class(texts):
    encoder = make_encoder(texts)
    examples = encode(texts, encoder, [("ab",), ("b" * 99,)])
    batch = TokenBatch.of(examples.batch(np.arange(2)))
    np.testing.assert_array_equal(batch.inputs[0, :3], [98, 99, 0])
    assert batch.inputs.shape == (2, texts.length)
    listops = dataclasses.replace(texts, encoding="listops")
    with pytest.raises(DataError, match=r"^input 1: has 'x'; must have 0, "):
        encode(listops, make_encoder(listops), [("[MAX 3 ]",), ("x",)])
