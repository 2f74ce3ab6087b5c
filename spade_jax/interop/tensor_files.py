"""Named arrays in safetensors files, read lazily and written one at a time.

The format has no checksum: `checksums.json` beside the files has the SHA-256 of each, and what is
read is compared with it where it is there.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from spade_jax.config import RunError

INDEX, SINGLE, CHECKSUMS = "model.safetensors.index.json", "model.safetensors", "checksums.json"

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(jnp.bfloat16),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(bool),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_READ = 1 << 24


class TensorFileError(RunError):
    """A file of arrays that cannot be read."""


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one or more files; each is read when it is asked for.

    Attributes:
      shapes: of all of them.
      metadata: what the files say of themselves.
    """

    def __init__(self, files: Mapping[str, Path]):
        """files: of each array the file that it is in.

        Raises:
          TensorFileError: one of them cannot be read, or lacks an array.
        """
        self._files = dict(files)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.metadata: dict[str, str] = {}
        for path in dict.fromkeys(self._files.values()):
            with _opened(path) as file:
                own = {name for name, place in self._files.items() if place == path}
                for name in sorted(own - set(file.keys())):
                    raise TensorFileError(f"{path}: holds no array {name!r}, as its index has it")
                for name in own:
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
                self.metadata |= file.metadata() or {}

    def __getitem__(self, name: str) -> np.ndarray:
        with _opened(self._files[name]) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_tensors(path: Path) -> Tensors:
    """The arrays of a safetensors file, or of a folder as `write_tensors` and Hugging Face leave.

    Raises:
      TensorFileError: nothing is there, or what is there is damaged.
    """
    if path.is_dir():
        if (path / INDEX).exists():
            files = _indexed(path)
        elif (path / SINGLE).exists():
            files = _names(path / SINGLE)
        else:
            raise TensorFileError(f"{path}: holds neither {SINGLE} nor {INDEX}")
    else:
        files = _names(path)
    for file in dict.fromkeys(files.values()):
        _check(file)
    return Tensors(files)


def write_tensors(
    folder: Path,
    shapes: Mapping[str, tuple[tuple[int, ...], Any]],
    get: Callable[[str], np.ndarray],
    *,
    max_shard_bytes: int,
    metadata: Mapping[str, str] = {},
) -> None:
    """Writes `model.safetensors`, or, where that would be too large, files of a series and their
    index; and `checksums.json`.

    Which array goes where is known from the shapes alone, so that all who write the same arrays
    write the same files.

    Args:
      shapes: shape and dtype of each array, in the order in which they are asked for.
      get: an array by its name. One is held at a time.
      max_shard_bytes: of arrays in a file; a larger array has a file of its own.
    """
    shards = _planned(shapes, max_shard_bytes)
    sums: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        own = {array: shapes[array] for array in names}
        sums[name] = _write(folder / name, own, get, metadata)
        places |= dict.fromkeys(names, name)
    if len(shards) > 1:
        total = sum(_size(*shapes[name]) for name in shapes)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _planned(
    shapes: Mapping[str, tuple[tuple[int, ...], Any]], max_shard_bytes: int
) -> list[list[str]]:
    """The arrays of each file, wide dtypes first: so all of them are aligned."""
    shards: list[list[str]] = [[]]
    used = 0
    for name in sorted(shapes, key=lambda name: -np.dtype(shapes[name][1]).itemsize):
        size = _size(*shapes[name])
        if shards[-1] and used + size > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _write(
    path: Path,
    shapes: Mapping[str, tuple[tuple[int, ...], Any]],
    get: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
) -> str:
    """One file; returns its SHA-256. The library would want all arrays at once."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, (shape, dtype) in shapes.items():
        begin, end = end, end + _size(shape, dtype)
        code = _CODES[np.dtype(dtype)]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def put(data: Any) -> None:
            file.write(data)
            digest.update(data)

        put(len(text).to_bytes(8, "little"))
        put(text)
        for name, (shape, dtype) in shapes.items():
            # Without a name here, so that it is gone before the next one is made.
            put(_bytes(name, np.asarray(get(name)), tuple(shape), np.dtype(dtype)))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _bytes(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> memoryview:
    """In the order of its indices, however it lies in memory."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: {array.dtype}{list(array.shape)}, must be {dtype}{list(shape)}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            yield file
    except FileNotFoundError:
        raise TensorFileError(f"{path}: is not there") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise TensorFileError(
            f"{path}: is no whole safetensors file ({error}); put back a whole copy"
        ) from None


def _names(path: Path) -> dict[str, Path]:
    with _opened(path) as file:
        return dict.fromkeys(file.keys(), path)


def _indexed(folder: Path) -> dict[str, Path]:
    path = folder / INDEX
    try:
        places = json.loads(path.read_text())["weight_map"]
        files = {str(name): folder / Path(file).name for name, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise TensorFileError(f"{path}: is no index of files ({error!r})") from None
    missing = sorted({file.name for file in files.values() if not file.exists()})
    if missing:
        raise TensorFileError(f"{path}: {', '.join(missing)} of its files are not there")
    return files


def _check(path: Path) -> None:
    """Raises TensorFileError where a file is not what its checksum says."""
    sums = path.parent / CHECKSUMS
    if not sums.exists():
        return
    try:
        expected = json.loads(sums.read_text()).get(path.name)
    except (ValueError, AttributeError, OSError) as error:
        raise TensorFileError(f"{sums}: is damaged ({error})") from None
    if expected is not None and expected != sha256(path):
        raise TensorFileError(
            f"{path}: its bytes have changed since it was written ({CHECKSUMS} has another "
            "SHA-256); put back a whole copy"
        )


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()
