"""Reads tests/golden: numbers from the authors' own code (tests/golden/README.md)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("golden")

# What golden/README.md calls fair for float32, relative to the largest value.
OUTPUT_TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 1e-4
SSM_GRADIENT_TOLERANCE = 2e-3


class Golden:
    """One golden file: its arrays by name, its parameters and the configuration behind it."""

    def __init__(self, name: str):
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop("meta")))
        self.config: dict[str, Any] = self.meta["config"]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays called `prefix` + name, by name: group("param/s4."), group("gradraw/")."""
        return {
            key.removeprefix(prefix): array
            for key, array in self.arrays.items()
            if key.startswith(prefix)
        }


def as_complex(pairs: Any) -> Any:
    """Real [..., 2], (real, imaginary) in the last axis, as complex [...]; numpy or jax."""
    return pairs[..., 0] + 1j * pairs[..., 1]


def output_error(actual: Any, expected: np.ndarray, where: np.ndarray | None = None) -> float:
    """The largest difference, relative to max(1, largest expected value).

    where: the leading axes, nonzero at the tokens to compare; None compares all.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    difference = np.abs(actual - expected)
    if where is not None:
        difference, expected = difference[where != 0], expected[where != 0]
    return float(difference.max() / max(1.0, np.abs(expected).max()))


def gradient_error(actual: Any, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
