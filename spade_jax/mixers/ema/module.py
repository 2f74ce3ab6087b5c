"""MEGA's moving average."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.elements import normal, parameter
from spade_jax.mixers import state_space
from spade_jax.mixers.base import Cache, Context
from spade_jax.mixers.ema.config import EMA
from spade_jax.ops.ssm.cached import empty_cache
from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.kernel import keep
from spade_jax.ops.ssm.transition import RealDiagonal
from spade_jax.places import place


class MovingAverage(nnx.Module):
    """y = silu(EMA(x) + omega x), a damped moving average of n dimensions (arXiv 2209.10655):

        s_t = (1 - p q) s_{t-1} + p beta x_t,    p = sigmoid(alpha), q = sigmoid(delta)
        EMA(x)_t = sum_n eta_n s_tn / sqrt(n)

    Where tokens see those behind them too, there is a second one from right to left, with
    parameters of its own; both see the token itself. Skip and SiLU are in the authors' code.

    Parameters, in the letters of the paper (the code calls alpha delta, delta alpha, eta gamma):
      alpha, delta, beta, eta [directions, d, n]; omega [d].
    """

    def __init__(self, config: EMA, width: int, *, causal: bool, rngs: nnx.Rngs):
        """width is d."""
        self.config, self.causal = config, causal
        # Decay would pull these away from what they stand for.
        dynamics: dict[str, Any] = {"decays": False, "group": "ssm"}
        shape = (1 if causal else 2, width, config.state_size)
        axes = ("ssm_directions", "ssm_features", "ssm_state")
        self.alpha = normal(rngs, shape, 0.2, axes, **dynamics)
        self.delta = normal(rngs, shape, 0.2, axes, **dynamics)
        # Of one sign, they would all begin as the same.
        signs = jnp.where(jnp.arange(config.state_size) % 2, -1.0, 1.0)
        noise = 0.02 * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.beta = parameter(signs + noise, axes, **dynamics)
        self.eta = normal(rngs, shape, 1.0, axes)
        self.omega = normal(rngs, (width,), 1.0, ("ssm_features",), decays=False)

    @place("moving average")
    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """See `Mixer`. Drops nothing."""
        if cache is not None:
            system, skip = cache.shared
            y, rows = state_space.extend(self.config, system, cache.rows, skip, x, context)
            return jax.nn.silu(y).astype(x.dtype), Cache(rows, cache.shared)
        taps = self.config.max_kernel_length
        y = state_space.run(
            self.config,
            *self._discrete(),
            x,
            context,
            causal=self.causal,
            # What comes from behind begins with the second tap.
            max_kernel_length=None if taps is None else (taps, taps - 1),
            dtype=jnp.float32,
        )
        return keep(jax.nn.silu(y).astype(x.dtype)), None

    def init_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """See `Mixer`; states are float32 whatever `dtype` says.

        Where the kernel is cut off, tokens that have left it are subtracted, so that single tokens
        give what the whole sequence does. The authors' steps never cut it.
        """
        system, c, skip = self._discrete()
        fixed, empty = empty_cache(
            system, c, rows=rows, length=length, max_kernel_length=self.config.max_kernel_length
        )
        return Cache(empty, (fixed, skip))

    @place("state space operators")
    def _discrete(self) -> tuple[DiscreteStateSpace, jax.Array, jax.Array]:
        """The state space, its readouts [directions, d, directions * n], and the skip [d].

        Both directions are one state, [forward; backward], of which each reads its own half.
        """
        p = jax.nn.sigmoid(self.alpha[...])
        decay = 1 - p * jax.nn.sigmoid(self.delta[...])
        written = p * self.beta[...]
        read = self.eta[...] * self.config.state_size**-0.5
        skip = self.omega[...]
        if not self.causal:
            # From behind, `convolve` takes what is at least a token away: the rest is a skip.
            skip = skip + jnp.sum(read[1] * written[1], axis=-1)
            forward, backward = read[0], read[1] * decay[1]
            nothing = jnp.zeros_like(forward)
            read = jnp.stack(
                [
                    jnp.concatenate([forward, nothing], axis=-1),
                    jnp.concatenate([nothing, backward], axis=-1),
                ]
            )
        a, b = (jnp.concatenate([*x], axis=-1) for x in (decay, written))
        return DiscreteStateSpace(RealDiagonal(a), b), read, skip
