"""Folders of classes, and Pathfinder's."""

import pytest
from images_made import noise, write_class_folders, write_pathfinder_folder, write_png

from spade_jax.data.classification.folders import (
    class_folder_files,
    class_names,
    pathfinder_files,
)
from spade_jax.data.config import DataError


def test_a_folder_for_each_class(tmp_path):
    write_class_folders(tmp_path, noise(4, 4))
    (tmp_path / "README").write_text("no folder")
    assert class_names([str(tmp_path)]) == ("cat", "dog")
    files = class_folder_files(str(tmp_path), ("cat", "dog"))
    assert files == [
        (f"{tmp_path}/{name}/{number}.png", name)
        for name, number in (("cat", 0), ("cat", 1), ("dog", 2), ("dog", 3))
    ]
    with pytest.raises(DataError, match=r"has a folder 'dog'; must have .* which are cat, cow$"):
        class_folder_files(str(tmp_path), ("cat", "cow"))
    (tmp_path / "emu").mkdir()
    with pytest.raises(DataError, match=r"/emu: has no image; must have .png, .jpg"):
        class_folder_files(str(tmp_path), ("cat", "dog", "emu"))
    with pytest.raises(DataError, match=r"/emu: has no folders; must have one for each class"):
        class_folder_files(f"{tmp_path}/emu", ("cat",))
    with pytest.raises(DataError, match=r"^/no/such: cannot be read: No such file"):
        class_names(["/no/such"])


def test_pathfinder_in_the_order_of_its_metadata(tmp_path):
    write_pathfinder_folder(tmp_path, noise(21, 4), [i % 2 for i in range(21)])
    # The published folders have an empty file that nothing lists.
    (tmp_path / "imgs" / "0" / "sample_172.png").write_bytes(b"")
    found = pathfinder_files(str(tmp_path))
    assert [path for _, path, _ in found] == [
        f"{tmp_path}/imgs/{i // 2}/sample_{i % 2}.png" for i in range(21)
    ]
    assert [label for _, _, label in found] == [str(i % 2) for i in range(21)]
    assert found[3][0] == f"{tmp_path}/metadata/1.npy, line 2"


def test_missing_images_are_named_together(tmp_path):
    write_pathfinder_folder(tmp_path, noise(8, 4), [0] * 8)
    for number in (0, 3, 4, 5, 6):
        (tmp_path / f"imgs/{number // 2}/sample_{number % 2}.png").unlink()
    with pytest.raises(DataError) as caught:
        pathfinder_files(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: 5 of 8 listed images are missing: {tmp_path}/imgs/0/sample_0.png, "
        f"{tmp_path}/imgs/1/sample_1.png, {tmp_path}/imgs/2/sample_0.png and 2 more"
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "0.npy: is empty; must list the images"),
        (b"\x93NUMPY", "0.npy: is no text; must have lines"),
        (b"imgs/0 sample_0.png 0\n", "0.npy, line 1: is 'imgs/0 .*; must be folder, file"),
        (b"../imgs/0 sample_0.png 0 1\n", "0.npy, line 1: is '../imgs/0 "),
    ],
)
def test_metadata_at_fault(tmp_path, contents, message):
    write_png(tmp_path / "imgs" / "0" / "sample_0.png", noise(1, 4)[0])
    (tmp_path / "metadata").mkdir()
    with pytest.raises(DataError, match=r"/metadata: has no .npy file"):
        pathfinder_files(str(tmp_path))
    (tmp_path / "metadata" / "0.npy").write_bytes(contents)
    with pytest.raises(DataError, match=f"{tmp_path}/metadata/{message}"):
        pathfinder_files(str(tmp_path))
