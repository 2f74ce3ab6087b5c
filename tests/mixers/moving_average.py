"""A gated moving average: a whole mixer in one file, as somebody else would add it."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.schema import Range
from spade_jax.elements import Linear, parameter
from spade_jax.mixers.base import Cache


@dataclasses.dataclass(frozen=True)
class MovingAverage(MixerConfig, kind="moving_average"):
    """y = sigmoid(W x) * s, s_t = a s_{t-1} + (1 - a) x_t, and the same from the other end."""

    initial_decay: Annotated[float, Range(0, 1, above=True, below=True)] = 0.8

    def flops(self, model, length, *, causal):
        return 2 * model.d_model**2

    def build(self, model, stack, *, causal, rngs):
        return GatedMovingAverage(self, model.d_model, causal, rngs)


class GatedMovingAverage(nnx.Module):
    def __init__(self, config, width, causal, rngs):
        self.causal = causal
        logit = jnp.full((width,), jax.scipy.special.logit(config.initial_decay))
        self.logit = parameter(logit, ("norm",), decays=False, group="ssm")
        self.gate = Linear(("embed", "mlp"), width, width, rngs=rngs)

    def __call__(self, x, context, *, cache=None, dropout_key=None):
        segment_ids = context.segment_ids
        if segment_ids is None:
            segment_ids = jnp.ones(x.shape[:2], jnp.int32)
        decay = jax.nn.sigmoid(self.logit[...])[None, None]
        u = jnp.where(segment_ids[..., None] != 0, x.astype(jnp.float32) * (1 - decay), 0)
        before = segment_ids[:, :1] if cache is None else cache.rows["segment_id"]
        same = jnp.concatenate([before, segment_ids[:, :-1]], axis=1) == segment_ids
        decays = jnp.where(same[..., None], decay, 0)
        s = self._scan(decays, u, 0 if cache is None else cache.rows["state"])
        if cache is not None:
            cache = Cache({"state": s[:, -1:], "segment_id": segment_ids[:, -1:]})
        if not self.causal:
            following = jnp.pad(decays[:, 1:], ((0, 0), (0, 1), (0, 0)))
            s = s + self._scan(following[:, ::-1], u[:, ::-1], 0)[:, ::-1]
        return jax.nn.sigmoid(self.gate(x)) * s.astype(x.dtype), cache

    def init_cache(self, rows, length, dtype):
        state = jnp.zeros((rows, 1, self.logit.shape[0]))
        return Cache({"state": state, "segment_id": jnp.zeros((rows, 1), jnp.int32)})

    def _scan(self, decays, u, start):
        u = u.at[:, :1].add(decays[:, :1] * start)
        meet = lambda one, other: (one[0] * other[0], one[1] * other[0] + other[1])  # noqa: E731
        return jax.lax.associative_scan(meet, (decays, u), axis=1)[1]
