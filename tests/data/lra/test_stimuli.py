"""Pathfinder's images: two dots, and the contours that join them or do not."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from spade_jax.data.lra import stimuli
from spade_jax.data.lra.stimuli import PUBLISHED, draw_stimulus

SMALL = PUBLISHED[32]


@pytest.fixture(scope="module")
def contours():
    """Pairs of long contours of size 32."""
    rng = np.random.default_rng(0)
    attempts = (stimuli._two_contours(rng, 1, SMALL) for _ in range(600))
    return [attempt[0] for attempt in attempts if attempt is not None]


def strokes(contour) -> list[tuple[np.ndarray, np.ndarray]]:
    """Beginning and end (y, x) of each paddle, along the contour."""
    found = []
    for number, paddle in enumerate(contour.paddles):
        tail = np.array([paddle.y, paddle.x], float)
        head = tail + SMALL.paddle_length * np.array(
            [math.sin(paddle.angle), math.cos(paddle.angle)]
        )
        # All but the first are drawn from their ends back.
        found.append((tail, head) if number == 0 else (head, tail))
    return found


def test_contours_are_chains_of_paddles(contours):
    assert len(contours) >= 3
    for pair in contours:
        for contour in pair:
            ends = strokes(contour)
            assert len(ends) == 14
            assert contour.beginning == tuple(ends[0][0])
            assert contour.end == tuple(ends[-1][1])
            for (_, head), (tail, _) in itertools.pairwise(ends):
                # Two margins, but for the rounding of joints and ends to pixels.
                assert abs(np.linalg.norm(tail - head) - 2) < 1.8
        begun = np.array([contour.beginning for contour in pair])
        assert abs(np.linalg.norm(begun[0] - begun[1]) - SMALL.seed_distance) < 1
        inside = 2 * SMALL.seed_distance
        assert (begun[0] >= inside).all()
        assert (begun[0] < 32 - inside).all()


def test_paddles_of_different_contours_keep_their_distance(contours):
    for one, other in contours:
        points = [
            np.array([a + t * (b - a) for a, b in strokes(c) for t in (0, 0.5, 1)])
            for c in (one, other)
        ]
        distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
        assert distances.min() > SMALL.margins[0]


def test_continuity_limits_the_turns(contours):
    turns = []
    for contour in (c for pair in contours for c in pair):
        angles = [math.atan2(*(b - a)) for a, b in strokes(contour)]
        turns += [abs(math.remainder(b - a, 2 * math.pi)) for a, b in itertools.pairwise(angles)]
    # A turn of pi / 2 / continuity has no chance; most are much less.
    assert max(turns) < math.pi / 2
    assert 0.1 < np.mean(turns) < 0.8


@pytest.mark.parametrize("size", [32, 128])
def test_images_have_two_white_dots_and_dashes_between(size):
    config = PUBLISHED[size]
    image, margin = draw_stimulus(3, 1, config)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert margin in config.margins
    # A dot is where nothing but white is in reach.
    radius = int(config.marker_radius - 0.5)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.hypot(y, x) <= radius
    _, dots = ndimage.label(ndimage.binary_erosion(image == 255, disc))
    assert dots == 2
    _, pieces = ndimage.label(image > 0, np.ones((3, 3)))
    assert pieces >= 10
    # Of a size as published: 28 paddles, some of the distractors', and the dots.
    paddle = config.paddle_length * config.thickness
    most = 28 + config.distractors * config.distractor_paddles
    assert 20 * paddle < (image > 100).sum() < 3 * most * (paddle + 2)


def test_an_image_is_a_function_of_its_number_seed_and_label():
    image, _ = draw_stimulus(1, 0, SMALL)
    np.testing.assert_array_equal(draw_stimulus(1, 0, SMALL)[0], image)
    assert (draw_stimulus(2, 0, SMALL)[0] != image).any()
    assert (draw_stimulus(1, 0, dataclasses.replace(SMALL, seed=1))[0] != image).any()
    # The other label moves one dot, and nothing else.
    other, _ = draw_stimulus(1, 1, SMALL)
    _, places = ndimage.label(other != image, np.ones((3, 3)))
    assert 1 <= places <= 2
    assert (other != image).sum() <= 2 * 12
