"""S4's kernel as its paper computes it (arXiv 2111.00396, algorithm 1), to be measured against."""

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.ops.ssm.kernel import delayed_readout
from spade_jax.ops.ssm.transition import complex_state


def cauchy_kernel(system: StateSpace, c: jax.Array, length: int) -> jax.Array:
    """K_j, j < length, for one copy of (A, B) a feature and readouts c [channels, d, n/2].

    The kernel's generating function at the roots of unity z is, with C~ = C (I - A^length) and
    g = 2 / dt (1 - z) / (1 + z), a sum of Cauchy products over the poles w, corrected for the
    low rank by Woodbury's formula. Even lengths alone.

    Returns:
      [channels, d, length].
    """
    assert system.p is not None
    rows = readout(c)
    truncated = rows - delayed_readout(discretize(system, "bilinear"), rows, length)
    c_tilde = complex_state(truncated).conj() / 2

    # On the host, in float64: the angles of long kernels need it. The last node, -1, is a pole of
    # g, where the transform has the limit dt Re(sum C~ B).
    z = np.exp(-2j * np.pi * np.arange(length // 2) / length)
    g = jnp.asarray(2 * (1 - z) / (1 + z), system.w.dtype)[None] / system.dt[:, None]

    def cauchy(v: jax.Array) -> jax.Array:
        """sum over all poles of v / (g - w): [..., d, n/2] -> [..., d, nodes]."""
        poles = (system.w[..., None], system.w.conj()[..., None])
        inverse, mirrored = (1 / (g[:, None] - pole) for pole in poles)
        terms = v[..., None] * inverse[None] + v.conj()[..., None] * mirrored[None]
        return terms.sum(axis=-2)

    b, p = system.b[None], system.p[None]
    low_rank = cauchy(c_tilde * p) * cauchy(p.conj() * b) / (1 + cauchy(p.conj() * p))
    transform = 2 / (1 + jnp.asarray(z, g.dtype)) * (cauchy(c_tilde * b) - low_rank)
    limit = system.dt[None] * jnp.sum(c_tilde * b, axis=-1).real
    transform = jnp.concatenate([transform, limit[..., None].astype(transform.dtype)], axis=-1)
    return jnp.fft.irfft(transform, length)
