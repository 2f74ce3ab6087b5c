"""From a continuous state space to a discrete one, and its recurrence, token by token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax.ops.checks import check_choice
from spade_jax.ops.ssm.transition import (
    Dense,
    Diagonal,
    DiagonalMinusLowRank,
    Transition,
    einsum,
    like,
    matmul,
    multiplication,
    real_state,
)


class StateSpace(NamedTuple):
    """x' = A x + B u, y = C x, with A = diag(w) - P P^* ("DPLR"), or diag(w) where P is None.

    w, P and B are the stored halves, [copies, n/2], complex. The copies are tiled over the
    features: feature f uses copy f % copies. dt [d], real, is the step of each feature.
    """

    w: jax.Array
    p: jax.Array | None
    b: jax.Array
    dt: jax.Array


class DiscreteStateSpace(NamedTuple):
    """x_t = A x_{t-1} + B u_t for each of d features; B is [d, n], real."""

    a: Transition
    b: jax.Array


def readout(c: jax.Array) -> jax.Array:
    """C as a row over real states: 2 Re(C x) = readout(C) . x. Complex [..., n/2] -> [..., n]."""
    return jnp.concatenate([2 * c.real, -2 * c.imag], axis=-1)


def discretize(system: StateSpace, method: str) -> DiscreteStateSpace:
    """Holds the input for a step: "bilinear" or "zoh" (zero-order hold).

    bilinear: A' = (I - dt/2 A)^-1 (I + dt/2 A), B' = (I - dt/2 A)^-1 dt B
    zoh:      A' = exp(dt A),                    B' = A^-1 (exp(dt A) - I) B

    For DPLR the bilinear inverse is Sherman and Morrison's, since over real states P P^* is
    2 p p^T with p = [Re P; Im P].

    Raises:
      ValueError: another method.
    """
    check_choice("method", method, ("bilinear", "zoh"))
    copies, d = system.w.shape[0], system.dt.shape[0]
    w, b = (jnp.tile(x, (d // copies, 1)) for x in (system.w, system.b))
    dt = system.dt[:, None]
    if system.p is None:
        if method == "zoh":
            return DiscreteStateSpace(
                Diagonal(jnp.exp(dt * w)), real_state(jnp.expm1(dt * w) / w * b)
            )
        inverse = 1 / (1 - dt / 2 * w)
        return DiscreteStateSpace(Diagonal(1 + inverse * dt * w), real_state(inverse * dt * b))

    p_complex = jnp.tile(system.p, (d // copies, 1))
    if method == "zoh":
        p = real_state(p_complex)
        a_transposed = multiplication(w.conj()) - 2 * p[:, :, None] * p[:, None, :]
        # The exponential of [[A, B], [0, 0]] dt holds exp(dt A), and the integral that B' is;
        # here all of it is transposed.
        augmented = jnp.concatenate([a_transposed, real_state(b)[:, None]], axis=1)
        augmented = jnp.pad(augmented * dt[:, :, None], ((0, 0), (0, 0), (0, 1)))
        change = _expm1(augmented)
        return DiscreteStateSpace(Dense(change[:, :-1, :-1]), change[:, -1, :-1])
    inverse = 1 / (1 - dt / 2 * w)
    column = real_state(inverse * p_complex)  # D^-1 p, D = I - dt/2 diag(w)
    row = real_state(inverse.conj() * p_complex)  # p^T D^-1
    gain = dt / (1 + dt * jnp.sum(real_state(p_complex) * column, axis=1, keepdims=True))
    held = real_state(inverse * dt * b)
    held = held - gain * column * jnp.sum(row * real_state(dt * b), axis=1, keepdims=True)
    # The diagonal is 1 + dt w / D, and not 2 / D - 1: slow poles lie close to 1, and this keeps how
    # close.
    change = inverse * dt * w
    a = DiagonalMinusLowRank(change, (2 * gain * column)[:, None], row[:, None])
    return DiscreteStateSpace(a, held)


# exp(x) = exp(x / 2^16)^(2^16): the terms left out are below 1e-7 of the sum up to a norm of 4000,
# which S4 reaches at n = 256 and dt = 0.1.
_SQUARINGS = 16


def _expm1(x: jax.Array) -> jax.Array:
    """exp(x) - I of matrices [d, n, n], by squaring: exp(2x) - I = 2 f + f f, f = exp(x) - I.

    Squares of exp(x) itself would lose how close slow poles lie to 1: in float32 the output of S4
    with n = 64 is then off by 1.7e-4, and so by 6e-6.
    """
    x = x / 2**_SQUARINGS
    series = x / 4
    for k in (3, 2, 1):
        series = (x + matmul(x, series)) / k
    return jax.lax.fori_loop(0, _SQUARINGS, lambda _, f: 2 * f + matmul(f, f), series)


def step(
    system: DiscreteStateSpace, c: jax.Array, state: jax.Array, u: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One token: x_t = A x_{t-1} + B u_t, y_t = C x_t.

    Args:
      system: the discrete state space of d features.
      c: readouts, [channels, d, n] (see `readout`).
      state: x_{t-1}, [b, d, n].
      u: [b, d].

    Returns:
      x_t [b, d, n] and y_t [b, channels, d].
    """
    state = system.a.apply(state) + like(system.b, state) * u[..., None]
    return state, einsum("cdn,bdn->bcd", c, state)
