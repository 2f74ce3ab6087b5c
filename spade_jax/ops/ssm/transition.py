"""One step of a discrete state space, A, in the forms that there are of it.

States are real, [..., d, n]: of complex modes [real parts; imaginary parts] of the stored half of
the conjugate pairs. Every form offers A x, c A and A^k.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax import partition

# The SSM is an island of full precision: an accelerator would otherwise multiply in bfloat16.
einsum = functools.partial(jnp.einsum, precision="highest")


def real_state(x: jax.Array) -> jax.Array:
    """Complex [..., n/2] -> real [..., n]."""
    return jnp.concatenate([x.real, x.imag], axis=-1)


def complex_state(x: jax.Array) -> jax.Array:
    """Real [..., n] -> complex [..., n/2]."""
    real, imag = jnp.split(x, 2, axis=-1)
    return jax.lax.complex(real, imag)


def like(x: jax.Array, y: jax.Array) -> jax.Array:
    """x with as many dimensions as y, of which it has the last ones."""
    return x.reshape((1,) * (y.ndim - x.ndim) + x.shape)


def _multiply(real: jax.Array, imag: jax.Array, x: jax.Array) -> jax.Array:
    """Real states x [..., d, n] times complex numbers, given as two real [d, n/2]."""
    x_real, x_imag = jnp.split(x, 2, axis=-1)
    real, imag = like(real, x), like(imag, x)
    return jnp.concatenate([real * x_real - imag * x_imag, real * x_imag + imag * x_real], axis=-1)


def by_feature(apply: Callable[[jax.Array], jax.Array], states: jax.Array) -> jax.Array:
    """A transition's `apply`, which takes states [..., d, n], to states [d, ..., n]."""
    for _ in range(states.ndim - 2):
        apply = jax.vmap(apply, in_axes=1, out_axes=1)
    return apply(states)


def multiplication(z: jax.Array) -> jax.Array:
    """The real [..., n, n] matrix that multiplies a real state by the complex diagonal z."""
    eye = jnp.eye(z.shape[-1], dtype=z.real.dtype)
    eye = like(eye, z[..., None])
    real, imag = z.real[..., None] * eye, z.imag[..., None] * eye
    return jnp.block([[real, -imag], [imag, real]])


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, each [d, n, n]."""
    return einsum("dij,djk->dik", a, b)


def _power(
    x: jax.Array, k: int, multiply: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """x^k, k >= 1, by repeated squaring."""
    if k == 1:
        return x
    half = _power(x, k // 2, multiply)
    squared = multiply(half, half)
    return multiply(squared, x) if k % 2 else squared


class Diagonal(NamedTuple):
    """A = diag(z), z [d, n/2] complex: S4D."""

    z: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """A x."""
        return _multiply(self.z.real, self.z.imag, x)

    def apply_left(self, c: jax.Array) -> jax.Array:
        """c A."""
        return self.transpose().apply(c)

    def transpose(self) -> "Diagonal":
        """A^T: over real states, the conjugate."""
        return Diagonal(self.z.conj())

    def power(self, k: int) -> "Diagonal":
        """A^k."""
        return Diagonal(_power(self.z, k, jnp.multiply))

    def minus_identity(self) -> jax.Array:
        """(A - I)^T, [d, n, n]."""
        return multiplication(self.z.conj() - 1)

    def dense(self) -> "Diagonal":
        """Itself: a diagonal is cheaper than a matrix."""
        return self


class RealDiagonal(NamedTuple):
    """A = diag(q), q [d, n] real: moving averages, at half the cost of complex modes."""

    q: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """A x."""
        return like(self.q, x) * x

    def apply_left(self, c: jax.Array) -> jax.Array:
        """c A."""
        return self.apply(c)

    def transpose(self) -> "RealDiagonal":
        """A^T: itself."""
        return self

    def power(self, k: int) -> "RealDiagonal":
        """A^k."""
        return RealDiagonal(_power(self.q, k, jnp.multiply))

    def minus_identity(self) -> jax.Array:
        """(A - I)^T, [d, n, n]."""
        return (self.q - 1)[..., None] * jnp.eye(self.q.shape[-1], dtype=self.q.dtype)

    def dense(self) -> "RealDiagonal":
        """Itself: a diagonal is cheaper than a matrix."""
        return self


class Dense(NamedTuple):
    """A dense A, stored by how it differs from I: change [d, n, n] real is (A - I)^T.

    Slow poles lie next to 1, and float32 keeps of A itself too little of how close: powers by
    squaring would lose that (`discrete._expm1`). Transposed, because states are rows, and x A^T is
    a plain matmul.
    """

    change: jax.Array

    def apply(self, x: jax.Array) -> jax.Array:
        """A x."""
        return x + einsum("...dj,dji->...di", x, self.change)

    def apply_left(self, c: jax.Array) -> jax.Array:
        """c A."""
        return c + einsum("...di,dji->...dj", c, self.change)

    def transpose(self) -> "Dense":
        """A^T."""
        return Dense(jnp.swapaxes(self.change, 1, 2))

    def power(self, k: int) -> "Dense":
        """A^k: I + f times I + g is I + (f + g + f g)."""
        return Dense(_power(self.change, k, lambda f, g: f + g + matmul(f, g)))

    def minus_identity(self) -> jax.Array:
        """(A - I)^T, [d, n, n]."""
        return self.change

    def dense(self) -> "Dense":
        """Itself."""
        return self


class DiagonalMinusLowRank(NamedTuple):
    """A = I + diag(change) - columns^T rows: S4, with one of each, and its first powers.

    Applying it costs O(r n), where the dense matrix costs O(n^2).
    """

    change: jax.Array  # [d, n/2] complex: as of `Dense`, what the diagonal differs from 1 by
    columns: jax.Array  # [d, r, n]
    rows: jax.Array  # [d, r, n]

    def apply(self, x: jax.Array) -> jax.Array:
        """A x."""
        along = einsum("...dn,drn->...dr", x, self.rows)
        return self._diagonal().apply(x) - einsum("...dr,drn->...dn", along, self.columns)

    def apply_left(self, c: jax.Array) -> jax.Array:
        """c A."""
        along = einsum("...dn,drn->...dr", c, self.columns)
        return self._diagonal().apply_left(c) - einsum("...dr,drn->...dn", along, self.rows)

    def power(self, k: int) -> "DiagonalMinusLowRank | Dense":
        """A^k, k >= 1: dense, but for A^2 = D^2 - (A C) R - C (R D), where A = D - C R, of few
        columns and rows."""
        few = self.rows.shape[2] // _FEW[partition.platform()]
        if k != 2 or 2 * self.rows.shape[1] > few:
            return self.dense().power(k)
        further = by_feature(self.apply, self.columns)
        before = by_feature(self._diagonal().apply_left, self.rows)
        return DiagonalMinusLowRank(
            2 * self.change + self.change * self.change,
            jnp.concatenate([further, self.columns], axis=1),
            jnp.concatenate([self.rows, before], axis=1),
        )

    def dense(self) -> Dense:
        """A as a dense matrix."""
        diagonal = multiplication(self.change.conj())
        return Dense(diagonal - einsum("drj,dri->dji", self.rows, self.columns))

    def _diagonal(self) -> Diagonal:
        return Diagonal(1 + self.change)


# Columns and rows are few up to one for so many states: a TPU takes as long for a product with few
# of them as with a small matrix.
_FEW = {"cpu": 4, "gpu": 4, "tpu": 32}
# Those whose powers are of the same form.
Closed = RealDiagonal | Diagonal | Dense
Transition = Closed | DiagonalMinusLowRank
