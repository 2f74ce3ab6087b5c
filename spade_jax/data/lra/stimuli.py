"""Pathfinder: are two dots the ends of one dashed contour, or of two? (Linsley et al. 2018; Kim et
al. 2020, with the settings of the Long Range Arena.)

A contour is a chain of paddles, short straight strokes. Each has a margin around it into which no
other paddle comes, but for its neighbours in the chain; so it goes on behind its paddle at a
distance of two margins. The chain turns by an angle d with a probability in proportion to
cos(min(c |d|, pi/2))**2, c its continuity, among the places that are free. Every image has two long
contours that begin near each other, and shorter ones to distract. One dot is at the beginning of
one of the two, the other dot at the end of the same one (label 1) or of the other (label 0).
"""

import dataclasses
import functools
import math
from typing import Annotated, NamedTuple

import numpy as np

from spade_jax.config import Range, Seed, check_fields
from spade_jax.data.lra.drawing import draw_dot, draw_in, paddle_grey, paddle_mask, paddle_reach

# Trials at one place before a whole contour is begun anew.
_TRIALS = 3
_SEED_TRIALS = 30
_CONTOUR_TRIALS = 5


@dataclasses.dataclass(frozen=True)
class StimulusConfig:
    """What images are made of; lengths in pixels.

    Attributes:
      size: of the image, in each direction.
      margins: around paddles, one of them chosen for each image.
      paddle_length, thickness: of a paddle.
      marker_radius: of the dots.
      seed_distance: between the beginnings of the two long contours; the first is at least twice
        that far from the border.
      continuity: c.
      paddles: of each of the long contours.
      distractors, distractor_paddles: how many there are, as far as there is room, and their
        paddles.
      contrast, distractor_contrast: by which the paddles' grey levels are multiplied.
      padding: a border that stays empty of paddles.
      seed: of all images.
    """

    size: Annotated[int, Range(16, 1024)]
    margins: tuple[Annotated[int, Range(1, 100)], ...]
    paddle_length: Annotated[int, Range(1, 100)]
    thickness: Annotated[float, Range(0.1, 20)]
    marker_radius: Annotated[float, Range(0.5, 100)]
    seed_distance: Annotated[int, Range(1, 1000)]
    continuity: Annotated[float, Range(0.1, 100)]
    distractors: Annotated[int, Range(0, 1000)]
    contrast: Annotated[float, Range(0, 10, above=True)]
    distractor_contrast: Annotated[float, Range(0, 10, above=True)]
    paddles: Annotated[int, Range(2, 1000)] = 14
    distractor_paddles: Annotated[int, Range(1, 1000)] = 4
    padding: Annotated[int, Range(1, 100)] = 1
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "stimulus.")


# The hard split, by size. Paddles half a pixel thick are at most half white: hence the contrasts.
PUBLISHED = {
    32: StimulusConfig(32, (1,), 2, 0.5, 1.5, 7, 1.0, 5, 1.5, 2.0),
    64: StimulusConfig(64, (1,), 5, 1.0, 2.5, 12, 1.8, 5, 0.8, 0.8),
    128: StimulusConfig(128, (2, 3), 5, 1.5, 3.0, 20, 1.8, 8, 0.9, 0.9),
}


class Paddle(NamedTuple):
    """A paddle drawn from a pixel in a direction, its angle to the x axis (y points down)."""

    y: int
    x: int
    angle: float
    margin: int


class Contour(NamedTuple):
    """A whole chain.

    Attributes:
      beginning, end: pixels (y, x).
    """

    paddles: list[Paddle]
    beginning: tuple[int, int]
    end: tuple[int, int]


def draw_stimulus(number: int, label: int, config: StimulusConfig) -> tuple[np.ndarray, int]:
    """Image `number` of endlessly many, uint8 [size, size], and the margin that it has.

    Args:
      label: 1 for one contour, 0 for two.
    """
    rng = np.random.default_rng([config.seed, number])
    margin = config.margins[int(rng.random() * len(config.margins))]
    while (drawn := _two_contours(rng, margin, config)) is None:
        pass
    contours, room = drawn
    distractors: list[Paddle] = []
    for _ in range(config.distractors):
        for _ in range(_CONTOUR_TRIALS):
            found = _distractor(rng, margin, config, room)
            if found is not None:
                distractors += found
                break
    image = np.zeros((config.size, config.size))
    for paddles, contrast in (
        (contours[0].paddles + contours[1].paddles, config.contrast),
        (distractors, config.distractor_contrast),
    ):
        for paddle in paddles:
            grey = paddle_grey(paddle.angle, config.paddle_length, config.thickness)
            draw_in(image, paddle.y, paddle.x, contrast * grey)
    one = int(rng.random() * 2)
    for y, x in (contours[one].beginning, contours[one if label else 1 - one].end):
        draw_dot(image, y, x, config.marker_radius)
    return np.rint(255 * np.minimum(image, 1)).astype(np.uint8), margin


class _Room:
    """Where paddles are, and how near to them no other may come.

    Counts, so that a paddle can be taken away again.
    """

    def __init__(self, margin: int, config: StimulusConfig):
        self._config, self._margin = config, margin
        self._border = paddle_reach(config.paddle_length, config.thickness, 2 * margin)
        shape = (config.size + 2 * self._border,) * 2
        # Pixels with their margins, in which no paddle may be, and those that are a margin farther
        # away, in which none may end.
        self._taken = np.ones(shape, np.int16)
        self._near = np.ones(shape, np.int16)
        inside = self._border + config.padding
        self._taken[inside:-inside, inside:-inside] = 0
        inside += margin
        self._near[inside:-inside, inside:-inside] = 0

    def put(self, paddle: Paddle, times: int = 1) -> None:
        """Puts a paddle there, or with -1 takes it away."""
        for counts, margins in ((self._taken, 1), (self._near, 2)):
            mask = self._mask(paddle.angle, margins)
            self._window(counts, paddle.y, paddle.x, mask)[mask] += times

    def fits(self, paddle: Paddle) -> bool:
        """Whether it and its margin touch no other's."""
        if not self._is_inside(paddle.y, paddle.x):
            return False
        mask = self._mask(paddle.angle, 1)
        return not self._window(self._taken, paddle.y, paddle.x, mask)[mask].any()

    def is_free(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether paddles may end at pixels."""
        size = self._config.size
        inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
        y, x = np.where(inside, y, 0), np.where(inside, x, 0)
        return inside & (self._near[y + self._border, x + self._border] == 0)

    def _is_inside(self, y: int, x: int) -> bool:
        return 0 <= y < self._config.size and 0 <= x < self._config.size

    def _mask(self, angle: float, margins: int) -> np.ndarray:
        return paddle_mask(
            angle, self._config.paddle_length, self._config.thickness, margins * self._margin
        )

    def _window(self, counts: np.ndarray, y: int, x: int, mask: np.ndarray) -> np.ndarray:
        reach = len(mask) // 2
        top, left = y + self._border - reach, x + self._border - reach
        return counts[top : top + len(mask), left : left + len(mask)]


def _two_contours(
    rng: np.random.Generator, margin: int, config: StimulusConfig
) -> tuple[list[Contour], _Room] | None:
    """One attempt at the two long contours, which grow in turns; None where one has no room."""
    room = _Room(margin, config)
    inside = 2 * config.seed_distance
    span = max(config.size - 2 * inside, 1)
    y, x = (min(inside, config.size // 2) + int(rng.random() * span) for _ in range(2))
    around = 2 * math.pi * rng.random()
    other = (
        round(y + config.seed_distance * math.sin(around)),
        round(x + config.seed_distance * math.cos(around)),
    )
    chains: list[_Chain] = []
    for beginning in ((y, x), other):
        first = Paddle(*beginning, _angle(rng), margin)
        if not room.fits(first):
            return None
        room.put(first)
        chains.append(_Chain(first, config))
    for _ in range(config.paddles - 1):
        for chain in chains:
            if not chain.extend(rng, room):
                return None
    return [chain.contour for chain in chains], room


def _distractor(
    rng: np.random.Generator, margin: int, config: StimulusConfig, room: _Room
) -> list[Paddle] | None:
    """One attempt at a short contour, anywhere; None, and the room as it was, where none fits."""
    angle = _angle(rng)
    for _ in range(_SEED_TRIALS):
        y, x = (int(rng.random() * config.size) for _ in range(2))
        first = Paddle(y, x, angle, margin)
        if room.fits(first):
            break
    else:
        return None
    room.put(first)
    chain = _Chain(first, config)
    for _ in range(config.distractor_paddles - 1):
        if not chain.extend(rng, room):
            for paddle in chain.paddles:
                room.put(paddle, -1)
            return None
    return chain.paddles


def _angle(rng: np.random.Generator) -> float:
    """One of 360, all alike."""
    return math.radians(int(rng.random() * 360))


class _Chain:
    """A contour that grows at its end.

    Attributes:
      paddles: so far. All but the first are drawn from their ends back.
    """

    def __init__(self, first: Paddle, config: StimulusConfig):
        self.paddles = [first]
        self._config = config
        self._beginning = self._end = (first.y, first.x)
        # Where the margin before the last paddle begins, and that paddle's direction.
        self._joint = _moved(first.y, first.x, first.angle, -first.margin)
        self._angle = first.angle

    @property
    def contour(self) -> Contour:
        return Contour(self.paddles, self._beginning, self._end)

    def extend(self, rng: np.random.Generator, room: _Room) -> bool:
        """Puts a paddle more into the room; False where none fits."""
        config, last = self._config, self.paddles[-1]
        margin = last.margin
        joint = _moved(*self._joint, self._angle, config.paddle_length + 2 * margin)
        offsets, angles = _circle(config.paddle_length + margin)
        turns = np.abs(angles - self._angle) % (2 * np.pi)
        turns = np.minimum(turns, 2 * np.pi - turns)
        weights = np.cos(np.minimum(config.continuity * turns, np.pi / 2)) ** 2
        # Neighbours may be as near as the chain has them.
        room.put(last, -1)
        ends = np.array(joint) + offsets
        weights = weights * room.is_free(ends[:, 0], ends[:, 1])
        total = np.cumsum(weights)
        found = None
        for _ in range(_TRIALS if total[-1] > 1e-4 else 0):
            chosen = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
            angle = float(angles[chosen])
            paddle = Paddle(int(ends[chosen, 0]), int(ends[chosen, 1]), angle + math.pi, margin)
            if room.fits(paddle):
                found = paddle
                break
        room.put(last)
        if found is None:
            return False
        room.put(found)
        self.paddles.append(found)
        self._joint, self._angle, self._end = joint, angle, (found.y, found.x)
        return True


def _moved(y: int, x: int, angle: float, distance: float) -> tuple[int, int]:
    """The pixel at a distance in a direction."""
    return round(y + distance * math.sin(angle)), round(x + distance * math.cos(angle))


@functools.cache
def _circle(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels on a circle around one, [n, 2] (y, x), and their directions [n]."""
    around = np.arange(0, 2 * np.pi, 1 / radius)
    points = np.rint(radius * np.stack([np.sin(around), np.cos(around)], axis=1)).astype(int)
    points = np.unique(points, axis=0)
    return points, np.arctan2(points[:, 0], points[:, 1])
