"""The state space model that carries global information."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.elements import Linear, dropout, normal, parameter
from spade_jax.mixers import state_space
from spade_jax.mixers.base import Cache, Context
from spade_jax.mixers.s4.config import S4
from spade_jax.ops.ssm import hippo
from spade_jax.ops.ssm.cached import empty_cache
from spade_jax.ops.ssm.discrete import DiscreteStateSpace, StateSpace, discretize, readout
from spade_jax.ops.ssm.kernel import keep, kernel
from spade_jax.places import place


def _pairs(x: np.ndarray) -> np.ndarray:
    """Complex [...] -> real [..., 2], as complex parameters are stored."""
    return np.stack([x.real, x.imag], axis=-1)


def _complex(pairs: jax.Array) -> jax.Array:
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


class StateSpaceMixer(nnx.Module):
    """y = SSM(x) + D x: S4 (arXiv 2111.00396) or S4D (2206.11893).

    Around it is nothing, or, with `output="glu"`, what S4D's authors have: GELU, dropout, and a
    gated linear unit, (W gelu(y) + b) * sigmoid(W' gelu(y) + b').

    Parameters, in the letters of the papers, with c = `num_copies`, n the state size, and
    complex numbers as real pairs:
      a_log_decay, a_frequency [c, n/2]: w = -exp(a_log_decay) + i a_frequency.
      a_low_rank [c, n/2, 2]: P of A = diag(w) - P P^*; S4 only.
      b [c, n/2, 2]; c [directions, d, n/2, 2]; d [d]; log_dt [d].
    """

    def __init__(self, config: S4, model: ModelConfig, *, causal: bool, rngs: nnx.Rngs):
        self.config, self.causal = config, causal
        self.dropout_rate, width = model.dropout_rate, model.d_model
        # Decay would pull these away from what they stand for.
        dynamics: dict[str, Any] = {"decays": False, "group": "ssm"}
        copies, half = config.num_copies or width, config.state_size // 2

        def tiled(x: np.ndarray, axes: tuple[str, ...]) -> nnx.Param:
            copies_of_x = np.tile(x[None], (copies,) + (1,) * x.ndim)
            return parameter(jnp.asarray(copies_of_x), axes, **dynamics)

        p: np.ndarray | None
        if config.low_rank:
            w, p, b, _ = hippo.legs_nplr(config.state_size)
        else:
            w, p, b = hippo.s4d(config.init, config.state_size), None, np.ones(half, complex)
        pair_axes = ("ssm_copies", "ssm_state", "complex")
        self.a_low_rank = None if p is None else tiled(_pairs(p), pair_axes)
        self.a_log_decay = tiled(np.log(-w.real), ("ssm_copies", "ssm_state"))
        self.a_frequency = tiled(w.imag, ("ssm_copies", "ssm_state"))
        self.b = tiled(_pairs(b), pair_axes)
        directions = 1 if causal else 2
        # Complex normal of variance 1.
        axes = ("ssm_directions", "ssm_features", "ssm_state", "complex")
        self.c = normal(rngs, (directions, width, half, 2), 0.5**0.5, axes)
        self.d = normal(rngs, (width,), 1.0, ("ssm_features",), decays=False)
        log_dt = jax.random.uniform(
            rngs.params(), (width,), jnp.float32, np.log(config.dt_min), np.log(config.dt_max)
        )
        self.log_dt = parameter(log_dt, ("ssm_features",), **dynamics)
        gated = config.output == "glu"
        axes_out = ("embed", "mlp")
        self.output = Linear(axes_out, width, width, bias=True, rngs=rngs) if gated else None
        self.gate = Linear(axes_out, width, width, bias=True, rngs=rngs) if gated else None

    def state_space(self) -> StateSpace:
        """The continuous state space."""
        return StateSpace(
            w=jax.lax.complex(-jnp.exp(self.a_log_decay[...]), self.a_frequency[...]),
            p=None if self.a_low_rank is None else _complex(self.a_low_rank[...]),
            b=_complex(self.b[...]),
            dt=jnp.exp(self.log_dt[...]),
        )

    def kernel(self, length: int) -> jax.Array:
        """What each feature weighs its own past with, over distance: float32 [directions, d,
        length]; the second direction is to the right, from the next token on."""
        return kernel(*self._discrete(), length)

    @place("state space convolution")
    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """See `Mixer`. With a plain output it drops nothing."""
        y, cache = self._run(x, context, cache)
        if self.output is None or self.gate is None:
            return y, cache
        y = dropout(jax.nn.gelu(y, approximate=False), self.dropout_rate, dropout_key)
        return self.output(y) * jax.nn.sigmoid(self.gate(y)), cache

    def _run(
        self, x: jax.Array, context: Context, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        """SSM(x) + D x."""
        skip = self.d[...]
        if cache is not None:
            fixed, rows = cache.shared, cache.rows
            y, rows = state_space.extend(self.config, fixed, rows, skip, x, context)
            return y.astype(x.dtype), Cache(rows, fixed)
        y = state_space.run(
            self.config,
            *self._discrete(),
            skip,
            x,
            context,
            causal=self.causal,
            max_kernel_length=self.config.max_kernel_length,
            dtype=x.dtype,
        )
        if self.config.detach:
            y = jax.lax.stop_gradient(y)
        return keep(y), None

    def init_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """See `Mixer`; states are float32 whatever `dtype` says. The system is made discrete
        here."""
        system, c = self._discrete()
        fixed, empty = empty_cache(
            system,
            c,
            rows=rows,
            length=length,
            max_kernel_length=self.config.max_kernel_length,
        )
        return Cache(empty, fixed)

    @place("state space operators")
    def _discrete(self) -> tuple[DiscreteStateSpace, jax.Array]:
        """The discrete state space, and its readouts [directions, d, n]."""
        system = discretize(self.state_space(), self.config.discretization)
        return system, readout(_complex(self.c[...]))
