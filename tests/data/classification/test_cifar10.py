"""CIFAR-10 in the files of its authors."""

import pickle

import numpy as np
import pytest
from images_made import luma, noise, write_cifar10

from spade_jax.data.classification.cifar10 import read_cifar10
from spade_jax.data.config import DataError


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_1.bin"])
def test_both_versions(tmp_path, name):
    images = noise(3)
    write_cifar10(tmp_path, images, [7, 0, 9])
    where, found, labels = zip(*read_cifar10(str(tmp_path / name)))
    assert labels == (7, 0, 9)
    assert where[2] == f"{tmp_path}/{name}, image 2"
    assert np.abs(np.stack(found) - luma(images)).max() <= 0.51


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (pickle.dumps(Harmful()), r"\(names \w*io.open\)"),
        (pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}), r"holds uint8 \["),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0.5]}), "holds uint8"),
        (pickle.dumps({b"data": np.zeros((2, 3072), object), b"labels": [1, 2]}), "holds object"),
        (pickle.dumps([1]), "is no file of CIFAR-10's Python version"),
        (b"", "is no file of CIFAR-10's Python version"),
        (b"\x80\x02garbage", "is no file of CIFAR-10's Python version"),
    ],
)
def test_pickles_at_fault(tmp_path, monkeypatch, contents, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(contents)
    with pytest.raises(DataError, match=f"^{tmp_path}/batch: .*{message}"):
        list(read_cifar10(f"{tmp_path}/batch"))
    assert not (tmp_path / "harmed").exists()


def test_binary_files_at_fault(tmp_path):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"has 3072 bytes; must have 3073 for each image"):
        list(read_cifar10(str(path)))
