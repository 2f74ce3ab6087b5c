"""Images as published, in grey."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from etils import epath

from spade_jax.data.config import DataError

_FORMATS = ("PNG", "JPEG")
# ITU-R BT.601 of red, green and blue, in parts of 2**16, as PIL has it.
_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)


def grey(image: np.ndarray, where: str) -> np.ndarray:
    """An image in grey: luma of ITU-R BT.601, rounded.

    Args:
      image: uint8 [height, width], or [height, width, 1 or 3].

    Returns:
      Uint8 [height, width].

    Raises:
      DataError: an array of another form.
    """
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return ((image.astype(np.uint32) @ _WEIGHTS + 2**15) >> 16).astype(np.uint8)
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 1:
        return image[:, :, 0]
    if image.dtype == np.uint8 and image.ndim == 2:
        return image
    raise DataError(
        f"{where}: is {image.dtype} {list(image.shape)}; must be uint8 [height, width, 1 or 3]"
    )


def check_size(image: np.ndarray, side: int, where: str) -> np.ndarray:
    """An image [side, side] as it is.

    Raises:
      DataError: it has another size.
    """
    _require_size(image.shape[1], image.shape[0], side, where)
    return image


def read_image(path: str, side: int) -> np.ndarray:
    """A PNG or JPEG file in grey: uint8 [side, side].

    Raises:
      DataError: it cannot be read, is empty or damaged, or has another size.
    """
    from PIL import Image

    try:
        data = epath.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise DataError(f"{path}: is empty; must be a PNG or JPEG file")
    with _damage_named(path), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        # Before anything is decoded: a small file can hold a very large image.
        _require_size(image.width, image.height, side, path)
        return np.asarray(image.convert("RGB").convert("L"))


def _require_size(width: int, height: int, side: int, where: str) -> None:
    if (width, height) != (side, side):
        raise DataError(
            f"{where}: is {width} x {height} pixels; must be {side} x {side} for data.length = "
            f"{side * side}"
        )


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of large images, and of odd fields within files.
            yield
    except DataError:
        raise
    except Exception as error:  # Which kind depends on the format, and on what is damaged.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = "cannot identify image file" if "BytesIO" in reason else reason
        raise DataError(f"{path}: is damaged or no PNG or JPEG file ({reason:.100})") from None
