import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from spade_jax.interop.tensor_files import TensorFileError, read_tensors, write_tensors


def arrays():
    random = np.random.default_rng(0)
    return {
        "a/kernel": random.normal(size=(3, 5)).astype(np.float32),
        "transposed": random.normal(size=(4, 6)).astype(np.float32).T,
        "strided": random.normal(size=(8, 6)).astype(np.float32)[::2, ::-1],
        "half": np.asarray(jnp.asarray(random.normal(size=(7,)), jnp.bfloat16)),
        "number": np.asarray(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }


def write(folder, tensors, limit=2**30):
    shapes = {name: (array.shape, array.dtype) for name, array in tensors.items()}
    write_tensors(
        folder, shapes, tensors.__getitem__, max_shard_bytes=limit, metadata={"made_by": "us"}
    )


@pytest.mark.parametrize("limit", [2**30, 100])
def test_what_is_written_is_read_to_the_bit(tmp_path, limit):
    tensors = arrays()
    write(tmp_path, tensors, limit)
    found = read_tensors(tmp_path)
    assert found.shapes == {name: array.shape for name, array in tensors.items()}
    assert found.metadata == {"format": "pt", "made_by": "us"}
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert (tmp_path / "model.safetensors.index.json").exists() == (limit == 100)


def test_the_library_reads_the_same(tmp_path):
    tensors = arrays()
    write(tmp_path, tensors)
    theirs = load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_files_of_others_are_read(tmp_path):
    save_file({"x": np.arange(6.0, dtype=np.float32)}, tmp_path / "other.safetensors")
    np.testing.assert_array_equal(read_tensors(tmp_path / "other.safetensors")["x"], np.arange(6))


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "is no whole safetensors file|its bytes have changed"),
        (flip, "its bytes have changed"),
        (lambda path: path.write_bytes(b""), "is no whole safetensors file"),
        (lambda path: path.write_bytes(b"\x80\x02}q\x00." * 9), "is no whole safetensors file"),
        (lambda path: path.unlink(), "holds neither model.safetensors nor"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, damage, says):
    write(tmp_path, arrays())
    damage(tmp_path / "model.safetensors")
    with pytest.raises(TensorFileError, match=says) as error:
        read_tensors(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_shard_and_a_wrong_index_are_named(tmp_path):
    write(tmp_path, arrays(), 100)
    index = tmp_path / "model.safetensors.index.json"
    entries = json.loads(index.read_text())
    entries["weight_map"]["ghost"] = entries["weight_map"]["half"]
    good = index.read_text()
    index.write_text(json.dumps(entries))
    with pytest.raises(TensorFileError, match="holds no array 'ghost'"):
        read_tensors(tmp_path)
    index.write_text(good)
    lost = sorted(tmp_path.glob("model-*"))[0]
    lost.unlink()
    with pytest.raises(TensorFileError, match=rf"{lost.name} of its files are not there"):
        read_tensors(tmp_path)
    index.write_text("[]")
    with pytest.raises(TensorFileError, match="is no index of files"):
        read_tensors(tmp_path)


def test_an_array_that_is_not_what_was_announced_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x: float64\[2\], must be float32\[2\]"):
        write_tensors(
            tmp_path,
            {"x": ((2,), np.float32)},
            lambda name: np.zeros(2),
            max_shard_bytes=100,
            metadata={},
        )
