"""Paddles and dots as pixels."""

import math

import numpy as np
import pytest

from spade_jax.data.lra.drawing import draw_dot, draw_in, paddle_grey, paddle_mask


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 4.0])
def test_paddles_are_as_bright_as_what_they_cover(angle):
    grey = paddle_grey(angle, 5, 1.5)
    assert abs(grey.sum() - (5 * 1.5 + math.pi * 0.75**2)) < 0.05
    # Its middle is where it should be: half its length from where it begins.
    middle = np.array([grey.sum(axis=axis) @ np.arange(len(grey)) for axis in (1, 0)]) / grey.sum()
    expected = len(grey) // 2 + 2.5 * np.array([math.sin(angle), math.cos(angle)])
    np.testing.assert_allclose(middle, expected, atol=0.05)
    # The margin is around all of it.
    mask = paddle_mask(angle, 5, 1.5, 2)
    edge = (len(mask) - len(grey)) // 2
    assert mask[np.pad(grey, edge) > 0].all()
    assert abs(mask.sum() - (5 * 5.5 + math.pi * 2.75**2)) < 6


def test_what_is_drawn_at_the_border_is_cut_off_and_the_brighter_stays():
    image = np.full((8, 8), 0.3)
    patch = np.arange(25.0).reshape(5, 5) / 24
    draw_in(image, 0, 7, patch)
    np.testing.assert_allclose(image[:3, 5:], np.maximum(patch[2:, :3], 0.3))
    image[:3, 5:] = 0.3
    draw_in(image, 7, 0, patch)
    np.testing.assert_allclose(image[5:, :3], np.maximum(patch[:3, 2:], 0.3))
    image[5:, :3] = 0.3
    assert (image == 0.3).all()


def test_a_dot():
    image = np.zeros((16, 16))
    draw_dot(image, 8, 5, 3.0)
    assert image[8, 5] == image[8, 2] + 0.5 == image[6, 4] == 1
    assert abs(image.sum() - math.pi * 9) < 1
