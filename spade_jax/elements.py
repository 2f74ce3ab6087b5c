"""The elements that mixers and layers are made of: parameters, linear maps, norms, dropout.

Each parameter is float32 and says what it is: its logical axes (`axes`), by which it is placed on a
mesh, whether weight decay applies to it (`decays`), and the group of learning rates that it is in
(`group`). Shape letters: b batch, l length, d width.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.ops.precision import matmul_precision
from spade_jax.places import place


def parameter(
    value: jax.Array, axes: Sequence[str], *, decays: bool = True, group: str = "main"
) -> nnx.Param:
    """A parameter, float32.

    Args:
      axes: a name of `partition.RULES` for each of its axes.
      decays: whether the optimiser's weight decay applies to it.
      group: of learning rates: "main", or "ssm" for what defines a state space's dynamics.
    """
    return nnx.Param(jnp.asarray(value, jnp.float32), axes=tuple(axes), decays=decays, group=group)


def normal(
    rngs: nnx.Rngs, shape: Sequence[int], std: float, axes: Sequence[str], **kind: Any
) -> nnx.Param:
    """A normally distributed parameter; `kind` as of `parameter`."""
    return parameter(std * jax.random.normal(rngs.params(), shape, jnp.float32), axes, **kind)


def constant(shape: Sequence[int], value: float, axes: Sequence[str], **kind: Any) -> nnx.Param:
    """A parameter that begins as one number; `kind` as of `parameter`."""
    return parameter(jnp.full(shape, value, jnp.float32), axes, **kind)


@place("dropout")
def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Drops entries of x at random and scales up the others; as it is where `key` is None."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def split_key(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """Independent keys, or as many times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


class Linear(nnx.Module):
    """y = x W (+ b), W [in, out]; multiplies in the dtype of x."""

    def __init__(
        self,
        axes: tuple[str, str],
        size_in: int,
        size_out: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = False,
        std: float | None = None,
    ):
        """std None is size_in ** -0.5."""
        std = size_in**-0.5 if std is None else std
        self.kernel = normal(rngs, (size_in, size_out), std, axes)
        self.bias = constant((size_out,), 0.0, axes[1:], decays=False) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, l, in] -> [b, l, out]."""
        y = jnp.matmul(x, self.kernel.astype(x.dtype), precision=matmul_precision(x.dtype))
        if self.bias is not None:
            y = y + self.bias[None, None].astype(x.dtype)
        return y


class Norm(nnx.Module):
    """ "rms": x / rms(x) * scale. "layer": (x - mean) / std * scale + bias. Float32 inside."""

    def __init__(self, config: ModelConfig):
        self.epsilon, self.centred = config.norm_epsilon, config.norm == "layer"
        shape, axes = (config.d_model,), ("norm",)
        self.scale = constant(shape, 1.0, axes, decays=False)
        self.bias = constant(shape, 0.0, axes, decays=False) if self.centred else None

    @place("norms")
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, l, d] -> [b, l, d]."""
        y = x.astype(jnp.float32)
        if self.centred:
            y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + self.epsilon)
        y = y * self.scale[None, None]
        if self.bias is not None:
            y = y + self.bias[None, None]
        return y.astype(x.dtype)
