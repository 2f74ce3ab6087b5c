"""Rows of all sources, and what is said of those at fault."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from images_made import (
    luma,
    noise,
    write_cifar10,
    write_class_folders,
    write_pathfinder_folder,
)

from spade_jax.data._tensorflow import tf
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.rows import check_splits, read_rows
from spade_jax.data.config import DataError


def settings(path, **more) -> ClassificationDataConfig:
    """Of a set that is read, and validated on by a share of it."""
    return ClassificationDataConfig(**{"train": str(path), "validation_share": 0.5, **more})


def pixels(path, source, **more) -> ClassificationDataConfig:
    return settings(path, source=source, encoding="pixels", length=1024, **more)


def test_a_table_of_named_classes(tmp_path):
    (tmp_path / "a.csv").write_text('label,text\n good ,"one, two"\nbad,three\n')
    config = settings(tmp_path / "a.csv", labels=("bad", "good"))
    assert list(read_rows(config, "train")) == [
        (f"{tmp_path}/a.csv, line 2", ("one, two",), 1),
        (f"{tmp_path}/a.csv, line 3", ("three",), 0),
    ]


def test_pairs_as_retrieval_has_them(tmp_path):
    """Without a header; quotes are letters."""
    (tmp_path / "a.tsv").write_text('1.0\tx\ty\t"one\ttwo"\n0.0\tx\tz\tthree\tfour\n')
    header = ("label", "id1", "id2", "text1", "text2")
    config = settings(tmp_path / "a.tsv", header=header, inputs=("text1", "text2"))
    assert [row[1:] for row in read_rows(config, "train")] == [
        (('"one', 'two"'), 1),
        (("three", "four"), 0),
    ]


def test_listops_as_published(tmp_path):
    (tmp_path / "a.tsv").write_text("Source\tTarget\n( ( ( [MAX 3 ) 4 ) ] )\t4\n")
    config = settings(
        tmp_path / "a.tsv", encoding="listops", inputs=("Source",), target="Target", classes=10
    )
    assert [row[1:] for row in read_rows(config, "train")] == [(("( ( ( [MAX 3 ) 4 ) ] )",), 4)]


@pytest.mark.parametrize("source", ["cifar10", "image_folder", "pathfinder"])
def test_images_of_files(tmp_path, source):
    images = noise(6)
    path, labels = tmp_path, [0, 0, 0, 1, 1, 1]
    if source == "cifar10":
        write_cifar10(tmp_path, images, labels)
        path = tmp_path / "data_batch_1"
    elif source == "image_folder":
        write_class_folders(tmp_path, images)
    else:
        write_pathfinder_folder(tmp_path, images, labels)
    rows = list(read_rows(pixels(path, source), "train"))
    assert [row.label for row in rows] == labels
    assert np.abs(np.stack([row.inputs[0] for row in rows]) - luma(images)).max() <= 0.51


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of TFDS with the features of CIFAR-10, and a text."""
    directory = tmp_path_factory.mktemp("tfds")
    rows = {
        "image": noise(4),
        "label": np.array([1, 0, 1, 0]),
        "text": ["one", "two", "three", "four"],
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pictures",
        version="1.0.0",
        data_dir=directory,
        split_datasets={"train": tf.data.Dataset.from_tensor_slices(rows)},
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=2),
                "text": tfds.features.Text(),
            }
        ),
    )
    return {"source": "tfds", "name": "pictures:1.0.0", "data_dir": str(directory)}


def test_tfds(prepared):
    images = pixels("train[:2],train[2:]", inputs=("image",), **prepared)
    rows = list(read_rows(images, "train"))
    texts = list(read_rows(settings("train", **prepared), "train"))
    # TFDS has shuffled them when it prepared them.
    order = [("one", "two", "three", "four").index(row.inputs[0]) for row in texts]
    assert sorted(order) == [0, 1, 2, 3]
    assert [row.label for row in rows] == [row.label for row in texts] == [1 - n % 2 for n in order]
    found = np.stack([row.inputs[0] for row in rows])
    assert np.abs(found - luma(noise(4))[order]).max() <= 0.51
    assert texts[1].where == "pictures:1.0.0, train 1"
    smaller = dataclasses.replace(images, length=900)
    with pytest.raises(DataError, match=r"train\[2:\] 0: is 32 x 32 pixels; must be 30 x 30 for"):
        list(read_rows(smaller, "train"))
    with pytest.raises(DataError, match=r"data.train = 'trian': no such split of pictures:1.0.0;"):
        list(read_rows(settings("trian", **prepared), "train"))
    both = settings("train[:3]", validation="train[2:]", **{**prepared, "validation_share": 0.0})
    with pytest.raises(DataError, match=r"^data.validation = 'train\[2:\]': overlaps data.train"):
        check_splits(both)
    check_splits(dataclasses.replace(both, validation="train[3:]"))
    with pytest.raises(DataError, match="has no feature 'image_', but image, label, text; set"):
        list(read_rows(dataclasses.replace(images, inputs=("image_",)), "train"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "2\tx",
            "line 2: has the label '2'; must be a whole number from 0 to 1 (data.classes = 2)",
        ),
        ("0.5\tx", "line 2: has the label '0.5'; must be a whole number"),
        ("nan\tx", "line 2: has the label 'nan'; must be a whole number"),
        ("good\tx", "line 2: has the label 'good'; must be a whole number"),
        ("1\t ", "line 2: column 'text' is empty; must hold a text"),
        ("1", "line 2: has 1 columns; must have 2, as the header has"),
    ],
)
def test_rows_at_fault(tmp_path, row, message):
    (tmp_path / "a.tsv").write_text(f"label\ttext\n{row}\n")
    with pytest.raises(DataError) as caught:
        list(read_rows(settings(tmp_path / "a.tsv"), "train"))
    assert str(caught.value).startswith(f"{tmp_path}/a.tsv, {message}")


def test_labels_that_are_none_and_columns_that_are_not_there(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("label\ttext\nmaybe\tx\n")
    with pytest.raises(DataError, match=r"line 2: has the label 'maybe'; .* which are no, yes$"):
        list(read_rows(settings(path, labels=("no", "yes")), "train"))
    with pytest.raises(DataError, match=r"line 2: has no column 'words', but 'label', 'text'; set"):
        list(read_rows(settings(path, inputs=("words",)), "train"))
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(DataError, match=r"empty.tsv: has no rows; must have at least one"):
        list(read_rows(settings(tmp_path / "empty.tsv"), "train"))


def test_folders_that_are_not_as_many_as_classes(tmp_path):
    write_class_folders(tmp_path, noise(2))
    config = pixels(tmp_path, "image_folder", classes=3)
    with pytest.raises(DataError, match=r"has 2 folders \(cat, dog\); must have .* = 3$"):
        list(read_rows(config, "train"))


def test_a_file_is_in_one_split_only(tmp_path):
    (tmp_path / "a.tsv").write_text("label\ttext\n1\tx\n")
    (tmp_path / "folder").mkdir()
    table = ClassificationDataConfig(train=f"{tmp_path}/a.tsv", validation=f"{tmp_path}/*.tsv")
    folder = dataclasses.replace(
        pixels(tmp_path / "folder", "pathfinder"),
        validation_share=0,
        validation=f"{tmp_path}/folder/",
    )
    for config in (table, folder):
        with pytest.raises(DataError, match=r"^data.validation = .* is in data.train as well"):
            check_splits(config)
    with pytest.raises(DataError, match=r"^data.train = 'x.tsv': no such file"):
        check_splits(settings("x.tsv"))
