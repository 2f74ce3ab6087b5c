"""MEGA's gated attention."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.model import ModelConfig, StackConfig
from spade_jax.elements import Linear, constant, dropout, normal, split_key
from spade_jax.mixers.base import Cache, Context
from spade_jax.mixers.mega.bias import INITIAL_STD, RotaryBias, SimpleBias
from spade_jax.mixers.mega.config import Mega
from spade_jax.ops.attention.cached import cached_attention, empty_cache
from spade_jax.ops.attention.chunk import chunk_attention
from spade_jax.ops.attention.full import full_attention
from spade_jax.places import place


class GatedAttention(nnx.Module):
    """With m = EMA(a) of a layer whose input is x, and a = Norm(x) or x:

        u = sigmoid(W_u m), s = silu(W_s m), g = silu(W_g m), V = silu(W_v a)
        Q = s gamma_0 + beta_0,  K = s gamma_1 + beta_1
        h = silu(W_h m + U (attention(Q, K, V) g))
        x + u (h - x) is the layer's output.

    Softmax takes Q K / sqrt(z) + bias; the other weights divide Q K by the number of keys that the
    query sees instead (`ops.attention.weights`). Without a residual of its own, in a layer of two
    mixers, a stands for x.

    Parameters beside the matrices: scale and shift [2, z], gamma and beta.
    """

    def __init__(
        self, config: Mega, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: nnx.Rngs
    ):
        self.config, self.causal = config, causal
        self.dropout_rate = model.dropout_rate
        self.weights_dropout_rate = config.dropout_rate_of_weights(model)
        hidden = config.hidden_dropout_rate
        self.hidden_dropout_rate = model.dropout_rate if hidden is None else hidden
        d, z, v = model.d_model, config.query_dim, config.width_of_values(model)

        def linear(axes: tuple[str, str], size_in: int, size_out: int) -> Linear:
            return Linear(axes, size_in, size_out, bias=True, std=INITIAL_STD, rngs=rngs)

        self.average = config.average.build(model, stack, causal=causal, rngs=rngs)
        self.residual_gate = linear(("embed", "mlp"), d, d)
        self.shared = linear(("embed", "head_dim"), d, z)
        self.attention_gate = linear(("embed", "mlp"), d, v)
        self.value = linear(("embed", "mlp"), d, v)
        self.candidate = linear(("embed", "mlp"), d, d)
        self.output = linear(("mlp", "embed"), v, d)
        axes = ("query_and_key", "head_dim")
        self.scale = normal(rngs, (2, z), INITIAL_STD, axes, decays=False)
        self.shift = constant((2, z), 0.0, axes, decays=False)
        bias: SimpleBias | RotaryBias | None = None
        if config.bias == "simple":
            bias = SimpleBias(config.reach(1), rngs=rngs)
        elif config.bias == "rotary":
            bias = RotaryBias(z, rngs=rngs)
        self.bias = bias

    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
        residual: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """See `Mixer`."""
        residual = x if residual is None else residual
        keys = split_key(dropout_key, 5)
        own = None if cache is None else Cache(cache.rows["average"], cache.shared["average"])
        m, own = self.average(x, context, cache=own, dropout_key=keys[0])
        m = dropout(m, self.dropout_rate, keys[1])
        query, key, value, gate = self._project(x, m, keys[2])
        if cache is None:
            attended = self._attend(query, key, value, context, keys[3])
        else:
            attended, rows = self._attend_cached(query, key, value, context, cache)
            assert own is not None
            cache = Cache({"average": own.rows, "attention": rows}, cache.shared)
        with place("attention projections"):
            h = jax.nn.silu(self.candidate(m) + self.output(attended * gate))
            h = dropout(h, self.dropout_rate, keys[4])
            return jax.nn.sigmoid(self.residual_gate(m)) * (h - residual), cache

    @place("attention projections")
    def _project(
        self, x: jax.Array, m: jax.Array, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Queries and keys [b, l, 1, z], values [b, l, 1, v] and attention's gate [b, l, v]."""
        value = jax.nn.silu(self.value(x))
        value = dropout(value, self.hidden_dropout_rate, dropout_key)
        shared = jax.nn.silu(self.shared(m))
        scale, shift = (p[...].astype(x.dtype)[:, None, None] for p in (self.scale, self.shift))
        query, key = shared[None] * scale + shift
        if self.config.weights == "softmax":
            query = query * jnp.asarray(self.config.query_dim**-0.5, x.dtype)
        gate = jax.nn.silu(self.attention_gate(m))
        return query[:, :, None], key[:, :, None], value[:, :, None], gate

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        context: Context,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        """[b, l, v]."""
        settings: dict[str, Any] = {
            "causal": self.causal,
            "bias": self._bias(query.shape[1]),
            "weights": self.config.weights,
            "dropout_rate": 0.0 if dropout_key is None else self.weights_dropout_rate,
            "dropout_key": dropout_key,
            "implementation": self.config.implementation,
        }
        segment_ids = context.segment_ids
        if self.config.chunk_size is not None:
            y = place("chunk attention")(chunk_attention)(
                query,
                key,
                value,
                size=self.config.chunk_size,
                segment_ids=segment_ids,
                **settings,
            )
        else:
            y = place("causal attention" if self.causal else "full attention")(full_attention)(
                query,
                key,
                value,
                query_segment_ids=segment_ids,
                key_segment_ids=segment_ids,
                **settings,
            )
        return y[:, :, 0]

    def _attend_cached(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        context: Context,
        cache: Cache,
    ) -> tuple[jax.Array, Any]:
        """[b, l, v], and the keys and values with these tokens."""
        assert context.segment_ids is not None
        y, rows = cached_attention(
            query,
            key,
            value,
            cache.rows["attention"],
            context.start,
            chunk_size=self.config.chunk_size,
            segment_ids_bl=context.segment_ids,
            bias=cache.shared["bias"],
            weights=self.config.weights,
            implementation=self.config.implementation,
        )
        return y[:, :, 0], rows

    def init_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """See `Mixer`: the average's, and the keys and values of the chunk at hand."""
        average = self.average.init_cache(rows, length, dtype)
        size = self.config.chunk_size
        kept = empty_cache(
            rows,
            1,
            length if size is None else min(size, length),
            self.config.query_dim,
            dtype,
            value_dim=self.value.kernel.shape[-1],
            chunks=size is not None,
        )
        return Cache(
            {"average": average.rows, "attention": kept},
            {"average": average.shared, "bias": self._bias(length)},
        )

    def _bias(self, length: int) -> jax.Array | None:
        return None if self.bias is None else self.bias(self.config.reach(length))
