"""The convolution with the kernel's transform, as S4 publishes it.

Shape letters: s streams, b batch, l length, c channels, d features, k taps.
"""

import jax
import jax.numpy as jnp


def fft_convolve(taps: jax.Array, u: jax.Array) -> jax.Array:
    """A causal convolution by FFT: u [s, b, l, d], taps [s, c, d, k] -> [s, b, l, c, d]."""
    size = u.shape[2] + taps.shape[-1]  # linear, not circular
    u_f = jnp.fft.rfft(jnp.moveaxis(u, 2, 3), size)
    y = jnp.fft.irfft(u_f[:, :, None] * jnp.fft.rfft(taps, size)[:, None], size)
    return jnp.transpose(y[..., : u.shape[2]], (0, 1, 4, 2, 3))


@jax.custom_vjp
def fft_convolve_runs(taps: jax.Array, u: jax.Array, runs: jax.Array) -> jax.Array:
    """A transform for each run: a kernel's transform cannot be reset. For parity, not for speed."""
    return fft_convolve_runs_forward(taps, u, runs)[0]


def fft_convolve_runs_forward(taps, u, runs):
    def add_run(i, y):
        mask = (runs == i).astype(u.dtype)[..., None]
        return y + fft_convolve(taps, u * mask) * mask[..., None]

    shape = (*u.shape[:3], taps.shape[1], u.shape[3])
    y = jax.lax.fori_loop(0, runs.max() + 1, add_run, jnp.zeros(shape, u.dtype))
    return y, (taps, u, runs)


def fft_convolve_runs_backward(residuals, cotangent):
    taps, u, runs = residuals

    def add_run(i, gradients):
        mask = (runs == i).astype(u.dtype)[..., None]
        _, pullback = jax.vjp(fft_convolve, taps, u * mask)
        d_taps, d_u = pullback(cotangent * mask[..., None])
        return gradients[0] + d_taps, gradients[1] + d_u * mask

    zeros = (jnp.zeros_like(taps), jnp.zeros_like(u))
    return *jax.lax.fori_loop(0, runs.max() + 1, add_run, zeros), None


fft_convolve_runs.defvjp(fft_convolve_runs_forward, fft_convolve_runs_backward)
