"""The state space layer that carries global information."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config import ModelConfig
from spade_jax.layers.linear import normal
from spade_jax.layers.stepwise import MixerStep
from spade_jax.ops.ssm import hippo
from spade_jax.ops.ssm.convolution import convolve
from spade_jax.ops.ssm.discrete import DiscreteStateSpace, StateSpace, discretize, readout
from spade_jax.ops.ssm.stepwise import SSMCache, stepwise


def _pairs(x: np.ndarray) -> np.ndarray:
    """Complex [...] -> real [..., 2], as complex parameters are stored."""
    return np.stack([x.real, x.imag], axis=-1)


def _complex(pairs: jax.Array) -> jax.Array:
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


class SSM(nnx.Module):
    """y = SSM(x) + D x: S4 (arXiv 2111.00396) or S4D (2206.11893), and nothing around it.

    Parameters, in the letters of the papers, with c = `num_copies`, n the state size, and
    complex numbers as real pairs:
      a_log_decay, a_frequency [c, n/2]: w = -exp(a_log_decay) + i a_frequency.
      a_low_rank [c, n/2, 2]: P of A = diag(w) - P P^*; S4 only.
      b [c, n/2, 2]; c [directions, d, n/2, 2]; d [d]; log_dt [d].
    """

    def __init__(self, config: ModelConfig, *, causal: bool, rngs: nnx.Rngs):
        ssm, width = config.ssm, config.d_model
        self.config, self.causal = ssm, causal
        copies, half = ssm.num_copies or width, ssm.state_size // 2

        def tiled(x: np.ndarray, axes: tuple[str, ...]) -> nnx.Param:
            copies_of_x = np.tile(x[None], (copies,) + (1,) * x.ndim)
            return nnx.Param(jnp.asarray(copies_of_x, jnp.float32), axes=axes)

        p: np.ndarray | None
        if ssm.structure == "dplr":
            w, p, b, _ = hippo.legs_nplr(ssm.state_size)
        else:
            w, p, b = hippo.s4d(ssm.init, ssm.state_size), None, np.ones(half, complex)
        pair_axes = ("ssm_copies", "ssm_state", "complex")
        self.a_low_rank = None if p is None else tiled(_pairs(p), pair_axes)
        self.a_log_decay = tiled(np.log(-w.real), ("ssm_copies", "ssm_state"))
        self.a_frequency = tiled(w.imag, ("ssm_copies", "ssm_state"))
        self.b = tiled(_pairs(b), pair_axes)
        directions = 1 if causal else 2
        # Complex normal of variance 1.
        axes = ("ssm_directions", "ssm_features", "ssm_state", "complex")
        self.c = normal(rngs, (directions, width, half, 2), 0.5**0.5, axes)
        self.d = normal(rngs, (width,), 1.0, ("ssm_features",))
        log_dt = jax.random.uniform(
            rngs.params(), (width,), jnp.float32, np.log(ssm.dt_min), np.log(ssm.dt_max)
        )
        self.log_dt = nnx.Param(log_dt, axes=("ssm_features",))

    def state_space(self) -> StateSpace:
        """The continuous state space."""
        return StateSpace(
            w=jax.lax.complex(-jnp.exp(self.a_log_decay[...]), self.a_frequency[...]),
            p=None if self.a_low_rank is None else _complex(self.a_low_rank[...]),
            b=_complex(self.b[...]),
            dt=jnp.exp(self.log_dt[...]),
        )

    def __call__(self, x: jax.Array, *, segment_ids: jax.Array | None) -> jax.Array:
        """[b, l, d] -> [b, l, d]; float32 inside. Segments [b, l] as in `ops.ssm.convolution`."""
        u = x.astype(jnp.float32)
        system, c = self._discrete()
        y = convolve(
            system,
            c,
            u,
            method=self.config.convolution,
            chunk_length=self.config.chunk_length,
            segment_ids=segment_ids,
            bidirectional=not self.causal,
            max_kernel_length=self.config.max_kernel_length,
        )
        y = y[:, :, 0] + self.d[None, None] * u
        if self.config.detach:
            y = jax.lax.stop_gradient(y)
        return y.astype(x.dtype)

    def stepwise(self, rows: int, length: int) -> tuple[MixerStep, SSMCache]:
        """The causal layer token by token: see `MixerStep`. The system is made discrete here."""
        system, c = self._discrete()
        step, start = stepwise(
            system,
            c,
            rows=rows,
            length=length,
            max_kernel_length=self.config.max_kernel_length,
        )
        d = self.d[...]

        def token(
            x: jax.Array, index: jax.Array, segment_ids: jax.Array, cache: SSMCache
        ) -> tuple[jax.Array, SSMCache]:
            u = x[:, 0].astype(jnp.float32)
            y, cache = step(u, index, segment_ids[:, 0], cache)
            return (y[:, 0] + d[None] * u)[:, None].astype(x.dtype), cache

        return token, start

    def _discrete(self) -> tuple[DiscreteStateSpace, jax.Array]:
        """The discrete state space, and its readouts [directions, d, n]."""
        system = discretize(self.state_space(), self.config.discretization)
        return system, readout(_complex(self.c[...]))
