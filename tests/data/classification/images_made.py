"""Images of tests, in the files that data sets have."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def noise(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Uint8 [count, side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def luma(images: np.ndarray) -> np.ndarray:
    """In grey by ITU-R BT.601, not rounded: float64."""
    return images @ np.array([0.299, 0.587, 0.114])


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_class_folders(root: Path, images: np.ndarray) -> None:
    """The first half of the images in a folder `cat`, the others in `dog`."""
    for number, image in enumerate(images):
        name = "cat" if number < len(images) // 2 else "dog"
        write_png(root / name / f"{number}.png", image)


def write_cifar10(folder: Path, images: np.ndarray, labels: list[int]) -> None:
    """`data_batch_1`, and `data_batch_1.bin`."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    contents = {b"batch_label": b"one", b"labels": labels, b"data": rows}
    (folder / "data_batch_1").write_bytes(pickle.dumps(contents, protocol=2))
    records = np.concatenate([np.array(labels, np.uint8)[:, None], rows], axis=1)
    (folder / "data_batch_1.bin").write_bytes(records.tobytes())


def write_pathfinder_folder(root: Path, images: np.ndarray, labels: list[int]) -> None:
    """Two to a folder."""
    (root / "metadata").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels)):
        folder, name = f"imgs/{number // 2}", f"sample_{number % 2}.png"
        write_png(root / folder / name, image)
        with (root / "metadata" / f"{number // 2}.npy").open("a") as file:
            file.write(f"{folder} {name} {number % 2} {label} 1.0 14 4 2 0.5 1 1\n")
