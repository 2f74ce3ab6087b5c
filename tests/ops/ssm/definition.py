"""The state space by its definition, dense and slow: what the ops are held against.

Complex matrices over the full state [stored half; conjugates], inverses by solving, powers by
multiplying, and each pair of tokens weighed on its own. Nothing is shared with the ops.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PATTERNS = ("whole", "right", "left", "hole", "at_borders", "anywhere", "again", "nothing")


class Parameters(NamedTuple):
    """What is differentiated: w, p (None: diagonal) and b [copies, n/2], dt [d], and c."""

    w: jax.Array
    p: jax.Array | None
    b: jax.Array
    dt: jax.Array
    c: jax.Array  # [channels (twice that where bidirectional), d, n/2]


def random_parameters(d, n, copies, rows, dplr, seed, dtype=np.float64):
    """Poles of real part about -1/2 and steps in 0.03 … 0.3: kernels that ring and fade."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    w = -0.5 * np.exp(0.3 * random.normal(size=(copies, n // 2)))
    w = w - 1j * random.uniform(0, 10, size=(copies, n // 2))
    p = 0.5 * normal(copies, n // 2) if dplr else None
    dt = np.exp(random.uniform(np.log(0.03), np.log(0.3), size=d))
    parameters = Parameters(w, p, normal(copies, n // 2), dt, normal(rows, d, n // 2))
    cast = {np.float32: np.complex64, np.float64: np.complex128}
    return jax.tree.map(
        lambda x: x.astype(cast[dtype] if np.iscomplexobj(x) else dtype), parameters
    )


def segment_patterns(length, chunk, names=PATTERNS):
    """Segment ids [len(names), length] of one row for each name."""
    position = np.arange(length)
    third = length // 3
    rows = {
        "whole": np.ones(length),
        "right": position < (length + 1) // 2,
        "left": position >= third,
        "hole": (position < third) | (position >= third + chunk // 2 + 1),
        "at_borders": 1 + position // chunk,
        # Segments that share a block, one shorter than a block, padding between and behind.
        "anywhere": np.select(
            [
                position < third + 1,
                position < third + 3,
                position < third + 5,
                position < length - 2,
            ],
            [1, 2, 0, 3],
            0,
        ),
        "again": np.where((position >= third) & (position < 2 * third), 2, 1),
        "nothing": np.zeros(length),
    }
    return np.stack([rows[name] for name in names]).astype(np.int32)


def seen_pairs(segment_ids, bidirectional):
    """[b, l, l]: 1 where the first token may see the second: tokens of one stretch of one id."""
    batch, length = segment_ids.shape
    seen = np.zeros((batch, length, length))
    for row, ids in enumerate(segment_ids):
        stretch, last, stretches = 0, None, {}
        for i, number in enumerate(ids):
            if number == 0:
                continue
            stretch += last is not None and number != last
            last, stretches[i] = number, stretch
        for i in stretches:
            for j in stretches:
                if stretches[i] == stretches[j] and (j <= i or bidirectional):
                    seen[row, i, j] = 1
    return seen


def dense_system(parameters, method):
    """Discrete A [d, n, n], B [d, n] and C [rows, d, n], complex, over the full state."""
    repeats = parameters.dt.shape[0] // parameters.w.shape[0]

    def full(x):
        return jnp.concatenate([x, x.conj()], axis=-1)

    w, b = (jnp.tile(full(x), (repeats, 1)) for x in (parameters.w, parameters.b))
    eye = jnp.eye(w.shape[1])[None]
    a = w[:, :, None] * eye
    if parameters.p is not None:
        p = jnp.tile(full(parameters.p), (repeats, 1))
        a = a - p[:, :, None] * p[:, None, :].conj()
    dt = parameters.dt[:, None, None]
    if method == "bilinear":
        left, right = eye - dt / 2 * a, eye + dt / 2 * a
        a_bar = jnp.linalg.solve(left, right)
        b_bar = jnp.linalg.solve(left, dt * b[:, :, None])
    else:
        a_bar = jax.vmap(jax.scipy.linalg.expm)(dt * a)
        b_bar = jnp.linalg.solve(a, jnp.einsum("dij,dj->di", a_bar - eye, b)[:, :, None])
    return a_bar, b_bar[:, :, 0], full(parameters.c)


def kernel_by_definition(parameters, method, length):
    """K_j = C A^j B, [rows, d, length], one A after the other."""
    a, b, c = dense_system(parameters, method)
    _, states = jax.lax.scan(
        lambda x, _: (jnp.einsum("dij,dj->di", a, x), x), b, None, length=length
    )
    return jnp.einsum("cdn,ldn->cdl", c, states).real


def convolve_by_definition(parameters, u, method, pairs, bidirectional, cut):
    """y [b, l, channels, d]: y_i = sum_j K0_{i-j} u_j over j <= i, and K1_{j-i-1} u_j over j > i.

    pairs: [b, l, l], see `seen_pairs`; cut: the number of taps, or None.
    """
    length = u.shape[1]
    k = kernel_by_definition(parameters, method, length)
    k = k * (np.arange(length) < (cut or length))[None, None]
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    if bidirectional:
        forward, backward = jnp.split(k, 2)
        ahead = backward[:, :, np.maximum(-distance - 1, 0)]
        weights = jnp.where(distance >= 0, forward[:, :, np.maximum(distance, 0)], ahead)
    else:
        weights = jnp.where(distance >= 0, k[:, :, np.maximum(distance, 0)], 0.0)
    return jnp.einsum("cdij,bij,bjd->bicd", weights, pairs, u)


def small_parameters(rows, dtype=np.float32):
    """Of a DPLR system of 4 features and state 8, with `rows` readouts for each."""
    return random_parameters(4, 8, 2, rows, True, seed=5, dtype=dtype)
