"""The authors' C~ from C, and back, in float64 on the host.

Their kernel's readout is stored as C~ = C (I - A'^L), with A' the discrete A and L the length that
stands beside it: so their generating function sums L taps. Nothing else of a model depends on L.
In float32 the power alone would cost 3 to 4 digits; so all of it is float64, over real states
[Re x; Im x] as in `ops.ssm.discrete`, and for a few features at a time. A = diag(w) - P P^* with
Re w < 0 has no growing states, whatever training made of it, so that no power overflows.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from spade_jax.config import RunError

# Of the matrices of the features that are in memory at once, each [n, n].
_BLOCK_BYTES = 1 << 24


class Dynamics(NamedTuple):
    """What A' is made of, as it is stored, with c copies that are tiled over features.

    Attributes:
      log_decay, frequency: [c, n/2]; w = -exp(log_decay) + i frequency.
      low_rank: [c, n/2, 2], P as real pairs.
      log_dt: [d].
    """

    log_decay: np.ndarray
    frequency: np.ndarray
    low_rank: np.ndarray
    log_dt: np.ndarray


def without_tail(c: np.ndarray, dynamics: Dynamics, length: int) -> np.ndarray:
    """C~ = C (I - A'^length): [directions, d, n/2, 2] float -> float32 of the same shape.

    Raises:
      RunError: parameters that are not finite.
    """
    return _mapped(c, dynamics, length, lambda rows, matrix: rows @ matrix)


def with_tail(c_tilde: np.ndarray, dynamics: Dynamics, length: int) -> np.ndarray:
    """C of a C~: the inverse of `without_tail`.

    Raises:
      RunError: parameters that are not finite, or I - A'^length has no inverse.
    """

    def solve(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        columns = np.linalg.solve(np.swapaxes(matrix, 1, 2), np.swapaxes(rows, 1, 2))
        return np.swapaxes(columns, 1, 2)

    return _mapped(c_tilde, dynamics, length, solve)


def _mapped(
    c: np.ndarray,
    dynamics: Dynamics,
    length: int,
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """apply(rows of C [f, directions, n], I - A'^length [f, n, n]) of all features."""
    half = c.shape[2]
    # Re(C x) over real states; a factor common to all of C changes nothing.
    rows = np.concatenate([c[..., 0], -c[..., 1]], axis=-1).astype(np.float64).swapaxes(0, 1)
    found = np.empty_like(rows)
    for features, discrete in _blocks(dynamics):
        with np.errstate(over="ignore", invalid="ignore"):
            tail = np.linalg.matrix_power(discrete, length)
        wrong = "is not finite"
        if np.isfinite(tail).all():
            try:
                found[features] = apply(rows[features], np.eye(2 * half) - tail)
                continue
            except np.linalg.LinAlgError:
                wrong = "leaves I - A^L without an inverse"
        raise RunError(
            f"L = {length}: the discrete A to this power {wrong}, in features "
            f"{features.start} to {features.stop - 1}; no C of this C~ can be told"
        )
    found = found.swapaxes(0, 1)
    return np.stack([found[..., :half], -found[..., half:]], axis=-1).astype(np.float32)


def _blocks(dynamics: Dynamics) -> Iterator[tuple[slice, np.ndarray]]:
    """A' [f, n, n], bilinear, over real states, of a few features at a time."""
    log_decay, frequency, low_rank, log_dt = (x.astype(np.float64) for x in dynamics)
    copies, half = log_decay.shape
    n, features = 2 * half, len(log_dt)
    diagonal, above = np.arange(half), np.arange(half, n)
    step = max(1, math.floor(_BLOCK_BYTES / (n * n * 8)))
    for start in range(0, features, step):
        block = slice(start, min(start + step, features))
        # Feature f has copy f % copies.
        copy = np.arange(block.start, block.stop) % copies
        p = np.concatenate([low_rank[copy, :, 0], low_rank[copy, :, 1]], axis=1)
        a = -2 * p[:, :, None] * p[:, None, :]
        decay, turn = np.exp(log_decay[copy]), frequency[copy]
        a[:, diagonal, diagonal] -= decay
        a[:, above, above] -= decay
        a[:, diagonal, above] -= turn
        a[:, above, diagonal] += turn
        half_step = a * (np.exp(log_dt[block]) / 2)[:, None, None]
        yield block, np.linalg.solve(np.eye(n) - half_step, np.eye(n) + half_step)
