"""Paddles and dots as pixels, smooth at their borders; a paddle is a line with round ends."""

import functools
import math

import numpy as np

# Grey levels are means over so many points of a pixel, in each direction.
_FINE = 8


def paddle_reach(length: float, thickness: float, margin: float) -> int:
    """Pixels that a paddle and its margin can be away from where it begins."""
    return math.ceil(length + thickness / 2 + margin) + 1


@functools.lru_cache(maxsize=4096)
def paddle_mask(angle: float, length: int, thickness: float, margin: int) -> np.ndarray:
    """Where a paddle that begins in the middle lies, with its margin: bool [odd, odd].

    Args:
      angle: to the x axis; y points down.
    """
    reach = paddle_reach(length, thickness, margin)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _distance(y, x, angle, length) <= thickness / 2 + margin


@functools.lru_cache(maxsize=4096)
def paddle_grey(angle: float, length: int, thickness: float) -> np.ndarray:
    """The share of each pixel that a paddle covers which begins in the middle: float [odd, odd]."""
    reach = paddle_reach(length, thickness, 0)
    side = 2 * reach + 1
    fine = (np.arange(side * _FINE) + 0.5) / _FINE - 0.5 - reach
    covered = _distance(fine[:, None], fine[None], angle, length) <= thickness / 2
    return covered.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))


def _distance(y: np.ndarray, x: np.ndarray, angle: float, length: float) -> np.ndarray:
    """From points to the line of a length from (0, 0) in a direction."""
    sin, cos = math.sin(angle), math.cos(angle)
    along = np.clip(y * sin + x * cos, 0, length)
    return np.hypot(y - along * sin, x - along * cos)


def draw_in(image: np.ndarray, y: int, x: int, grey: np.ndarray) -> None:
    """Draws a patch [odd, odd] into an image around a pixel; the brighter of the two stays."""
    reach = len(grey) // 2
    top, left = y - reach, x - reach
    down, right = (min(len(grey), len(image) - start) for start in (top, left))
    up, skip = max(0, -top), max(0, -left)
    part = image[top + up : top + down, left + skip : left + right]
    np.maximum(part, grey[up:down, skip:right], out=part)


def draw_dot(image: np.ndarray, y: int, x: int, radius: float) -> None:
    """Draws a white disc."""
    rows, columns = np.ogrid[: len(image), : len(image)]
    distance = np.hypot(rows - y, columns - x)
    np.maximum(image, np.clip(radius + 0.5 - distance, 0, 1), out=image)
