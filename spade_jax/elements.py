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
from jax.ad_checkpoint import checkpoint_name

from spade_jax import partition
from spade_jax.config.model import ModelConfig
from spade_jax.ops.products import product, without_lone_row
from spade_jax.places import place

# The name of what linear maps give, of sums along the residual stream, and of what norms divide by:
# by it a rematerialisation policy can keep them. A sum takes no more memory than what is added
# last, which need not be kept then. (A policy sees no matmul that has its own gradient.)
KEPT = "kept"


def keep(x: jax.Array) -> jax.Array:
    """x by the name KEPT."""
    return checkpoint_name(x, KEPT)


def parameter(
    value: jax.Array,
    axes: Sequence[str],
    *,
    decays: bool = True,
    group: str = "main",
    rounded: bool = False,
) -> nnx.Param:
    """A parameter, float32.

    Args:
      axes: a name of `partition.RULES` for each of its axes.
      decays: whether the optimiser's weight decay applies to it.
      group: of learning rates: "main", or "ssm" for what defines a state space's dynamics.
      rounded: it is only read in the dtype of activations.
    """
    return nnx.Param(
        jnp.asarray(value, jnp.float32),
        axes=tuple(axes),
        decays=decays,
        group=group,
        rounded=rounded,
    )


def normal(
    rngs: nnx.Rngs, shape: Sequence[int], std: float, axes: Sequence[str], **kind: Any
) -> nnx.Param:
    """A normally distributed parameter; `kind` as of `parameter`."""
    return parameter(std * jax.random.normal(rngs.params(), shape, jnp.float32), axes, **kind)


def constant(shape: Sequence[int], value: float, axes: Sequence[str], **kind: Any) -> nnx.Param:
    """A parameter that begins as one number; `kind` as of `parameter`."""
    return parameter(jnp.full(shape, value, jnp.float32), axes, **kind)


def rounded(state: Any, dtype: Any) -> Any:
    """A module's state, in which parameters that are only read in the dtype of activations have
    it."""

    def cast(variable: nnx.Variable) -> nnx.Variable:
        if not variable.get_metadata().get("rounded", False):
            return variable
        return variable.replace(variable[...].astype(dtype))

    return jax.tree.map(cast, state, is_leaf=lambda node: isinstance(node, nnx.Variable))


class Statistic(nnx.Param):
    """A parameter that training calls of the model measure, and no gradient moves."""


def train(model: nnx.Module) -> None:
    """Has the model's calls be training calls: what normalises over a batch does so, and its
    statistics change with each call."""
    model.set_attributes(training=True, raise_if_not_found=False)


def statistics(module: nnx.Module) -> dict[Any, Any]:
    """All that is a `Statistic`, as nested dicts of arrays; empty for most models."""
    return nnx.to_pure_dict(nnx.state(module, Statistic))


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
        self.kernel = normal(rngs, (size_in, size_out), std, axes, rounded=True)
        self.bias = constant((size_out,), 0.0, axes[1:], decays=False) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, l, in] -> [b, l, out]."""
        # What `rounded` has rounded must not be read any wider.
        assert self.kernel.dtype in (jnp.float32, x.dtype)
        kernel = partition.gathered(self.kernel.astype(x.dtype), *self.kernel.axes)
        y = keep(product("bli,io->blo", x, kernel, dtype=x.dtype))
        if self.bias is not None:
            y = y + self.bias[None, None].astype(x.dtype)
        return y


class Norm(nnx.Module):
    """The norm that `config.norm` names, with eps = `config.norm_epsilon`; float32 inside.

    rms:   x / rms(x) * scale
    layer: (x - mean(x)) / std(x) * scale + bias
    scale: as "rms", with one number as scale for all features
    batch: (x - mean) / std * scale + bias, of each feature over all tokens of a batch, whichever
           devices they are on; padding does not count. Only training does that, see `train`: it
           keeps running means of both, by which everything else normalises.
    """

    def __init__(self, config: ModelConfig):
        self.kind, self.epsilon, self.training = config.norm, config.norm_epsilon, False
        shape, axes = (config.d_model,), ("norm",)
        has_bias, over_batch = self.kind in ("layer", "batch"), self.kind == "batch"
        one = self.kind == "scale"
        self.scale = constant(() if one else shape, 1.0, () if one else axes, decays=False)
        self.bias = constant(shape, 0.0, axes, decays=False) if has_bias else None
        self.mean = Statistic(jnp.zeros(shape), axes=axes) if over_batch else None
        self.variance = Statistic(jnp.ones(shape), axes=axes) if over_batch else None

    @place("norms")
    def __call__(self, x: jax.Array, segment_ids: jax.Array | None = None) -> jax.Array:
        """[b, l, d] -> [b, l, d].

        Args:
          segment_ids: int [b, l], 0 at padding; None: there is none.
        """
        y = x.astype(jnp.float32)
        if self.kind == "batch":
            mean, variance = self._moments(y, segment_ids)
            y = (y - mean[None, None]) * jax.lax.rsqrt(variance + self.epsilon)[None, None]
        else:
            y = without_lone_row(y)
            if self.kind == "layer":
                y = y - keep(y.mean(axis=-1, keepdims=True))
            variance = jnp.square(y).mean(axis=-1, keepdims=True)
            y = y * keep(jax.lax.rsqrt(variance + self.epsilon))
        y = y * self.scale[...]
        if self.bias is not None:
            y = y + self.bias[...]
        return y.reshape(x.shape).astype(x.dtype)

    def _moments(self, x: jax.Array, segment_ids: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance [d] of what a training call sees, else the running ones."""
        assert self.mean is not None
        assert self.variance is not None
        if not self.training:
            return self.mean[...], self.variance[...]
        counted = jnp.ones(x.shape[:2], bool) if segment_ids is None else segment_ids != 0
        weights = counted[..., None].astype(jnp.float32)
        count = jnp.maximum(weights.sum(), 1.0)
        mean = (weights * x).sum(axis=(0, 1)) / count
        variance = (weights * jnp.square(x - mean[None, None])).sum(axis=(0, 1)) / count
        unbiased = variance * count / jnp.maximum(count - 1, 1.0)
        for running, new in ((self.mean, mean), (self.variance, unbiased)):
            running[...] = jax.lax.stop_gradient((1 - _MOMENTUM) * running[...] + _MOMENTUM * new)
        return mean, variance


# How much of a running mean each training call replaces.
_MOMENTUM = 0.1
