"""Images of files and arrays, in grey."""

import io
import struct

import numpy as np
import pytest
from images_made import luma, noise
from PIL import Image

from spade_jax.data.classification.images import grey, read_image
from spade_jax.data.config import DataError


def test_grey_is_luma_and_of_arrays_what_it_is_of_files(tmp_path):
    (image,) = noise(1)
    found = grey(image, "here")
    assert found.dtype == np.uint8
    assert np.abs(found - luma(image)).max() <= 0.51
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), 32), found)
    Image.fromarray(found).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "b.png"), 32), found)
    np.testing.assert_array_equal(grey(found[..., None], "here"), found)
    with pytest.raises(DataError, match=r"^here: is float64 \[32, 32\]; must be uint8"):
        grey(found.astype(float), "here")


def png(width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((32, width), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty; must be a PNG or JPEG file"),
        (b"no image", r"is damaged or no PNG or JPEG file \(cannot identify image file\)"),
        (png(32)[:50], r"is damaged or no PNG or JPEG file \(.*\)"),
        (png(31), "is 31 x 32 pixels; must be 32 x 32 for data.length = 1024"),
        # Said to be of 10^10 pixels, which nobody tries to decode.
        (png(32)[:16] + struct.pack(">II", 10**5, 10**5) + png(32)[24:], "is .*"),
    ],
)
def test_files_at_fault(tmp_path, contents, message):
    path = tmp_path / "a.png"
    path.write_bytes(contents)
    with pytest.raises(DataError, match=f"^{path}: {message}$"):
        read_image(str(path), 32)


def test_no_such_image(tmp_path):
    with pytest.raises(DataError, match=r"a.png: cannot be read: No such file"):
        read_image(str(tmp_path / "a.png"), 32)
