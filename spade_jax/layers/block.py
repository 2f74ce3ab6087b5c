"""A layer: one mixer, or SPADE's two side by side; cross-attention in decoders; feed-forward.

    h = Norm(x)                                    (pre-norm; post-norm takes h = x)
    concat:  m = W [Norm_g(global(h)); Norm_l(local(h))] + b
    add:     m = w Norm_g(global(h)) + (1 - w) Norm_l(local(h))
    stack:   m = local(global(h))
    residual: m = local(h) + W Norm_g(global(h)), where W begins as 0
    x = x + m;  x = x + FeedForward(Norm(x))       (post-norm: a Norm after each sum)

A layer of one mixer, m = mixer(h), is an ordinary transformer layer; some mixers gate the residual,
and m = mixer(h, x) is what they change x by. Of two, the first one is
called global and the second one local, as SPADE has them, whatever they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.model import ModelConfig, StackConfig
from spade_jax.config.pattern import LayerSpec
from spade_jax.elements import Linear, Norm, dropout, keep, split_key
from spade_jax.layers.cross_attention import CrossAttention, Encoded
from spade_jax.layers.feed_forward import FeedForward
from spade_jax.mixers.base import Cache, Context
from spade_jax.places import place

# What a layer keeps of each of its parts.
BlockCache = dict[str, Cache]


class Block(nnx.Module):
    """One layer of a stack; see the module's formulas."""

    def __init__(
        self,
        config: ModelConfig,
        stack: StackConfig,
        spec: LayerSpec,
        *,
        causal: bool,
        cross_attention: bool,
        rngs: nnx.Rngs,
    ):
        self.pre_norm = config.norm_placement == "pre"
        self.dropout_rate, self.add_weight = config.dropout_rate, config.add_weight
        self.combine, self.mixer_names = spec.combine, spec.mixers

        def build(name: str) -> Any:
            return config.mixers[name].build(config, stack, causal=causal, rngs=rngs)

        alone = config.mixers[spec.mixers[-1]] if self.combine is None else None
        self.gates_residual = alone is not None and alone.gates_residual
        self.mixer_norm = Norm(config)
        # A layer of one mixer keeps it under the name of the local one.
        self.local_mixer = build(spec.mixers[-1])
        self.global_mixer = build(spec.mixers[0]) if self.combine else None
        self.global_norm = Norm(config) if self.combine in ("concat", "add", "residual") else None
        self.local_norm = Norm(config) if self.combine in ("concat", "add") else None
        self.aggregate = self._aggregate(config.d_model, rngs)
        self.cross_norm = Norm(config) if cross_attention else None
        self.cross_attention = CrossAttention(config, rngs=rngs) if cross_attention else None
        self.feed_forward_norm = Norm(config) if spec.feed_forward else None
        self.feed_forward = FeedForward(config, rngs=rngs) if spec.feed_forward else None

    @place("residuals")
    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        encoded: Encoded | None = None,
        cache: BlockCache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, BlockCache | None]:
        """[b, l, d] -> [b, l, d], and the cache with these tokens; None without one.

        Args:
          encoded: for cross-attention, where there is no cache that knows it.
        """
        keys = split_key(dropout_key, 7)
        residual = {"residual": x} if self.gates_residual else {}
        h = self._before(self.mixer_norm, x, context)
        h, after = self._mix(h, context, cache, keys, **residual)
        x = self._after(self.mixer_norm, x, h, context, None if self.gates_residual else keys[1])
        if self.cross_attention is not None:
            assert self.cross_norm is not None
            h = self.cross_attention(
                self._before(self.cross_norm, x, context),
                context,
                encoded=encoded,
                cache=None if cache is None else cache["cross"],
                dropout_key=keys[2],
            )
            x = self._after(self.cross_norm, x, h, context, keys[3])
        if self.feed_forward is not None:
            assert self.feed_forward_norm is not None
            h = self._before(self.feed_forward_norm, x, context)
            h = self.feed_forward(h, dropout_key=keys[4])
            x = self._after(self.feed_forward_norm, x, h, context, keys[5])
        return x, None if cache is None else cache | after

    def init_cache(
        self, rows: int, length: int, dtype: Any, encoded: Encoded | None = None
    ) -> BlockCache:
        """As of `Mixer`, of all its parts."""
        cache = {"local": self.local_mixer.init_cache(rows, length, dtype)}
        if self.global_mixer is not None:
            cache["global"] = self.global_mixer.init_cache(rows, length, dtype)
        if self.cross_attention is not None:
            assert encoded is not None
            cache["cross"] = self.cross_attention.init_cache(encoded)
        return cache

    def _aggregate(self, d: int, rngs: nnx.Rngs) -> Linear | None:
        """What a layer's two mixers meet in, where that has weights."""
        if self.combine == "concat":
            return Linear(("mlp", "embed"), 2 * d, d, bias=True, rngs=rngs)
        if self.combine == "residual":
            # The layer begins as its local mixer alone, to the bit; this matrix has a gradient
            # then, and what it multiplies has one from the first update on.
            return Linear(("mlp", "embed"), d, d, std=0.0, rngs=rngs)
        return None

    def _before(self, norm: Norm, x: jax.Array, context: Context) -> jax.Array:
        return norm(x, context.segment_ids) if self.pre_norm else x

    def _after(
        self, norm: Norm, x: jax.Array, h: jax.Array, context: Context, key: jax.Array | None
    ) -> jax.Array:
        x = keep(x + dropout(h, self.dropout_rate, key))
        return x if self.pre_norm else norm(x, context.segment_ids)

    def _mix(
        self,
        h: jax.Array,
        context: Context,
        cache: BlockCache | None,
        keys: list[jax.Array | None],
        **residual: jax.Array,
    ) -> tuple[jax.Array, BlockCache]:
        after: BlockCache = {}

        def run(name: str, mixer: Any, h: jax.Array, key: jax.Array | None) -> jax.Array:
            own = None if cache is None else cache[name]
            kind = self.mixer_names[0 if name == "global" else -1]
            with place(f"{kind} mixer"):
                y, own = mixer(h, context, cache=own, dropout_key=key, **residual)
            if own is not None:
                after[name] = own
            return y

        if self.global_mixer is None:
            return run("local", self.local_mixer, h, keys[0]), after
        global_h = run("global", self.global_mixer, h, keys[6])
        if self.combine == "stack":
            return run("local", self.local_mixer, global_h, keys[0]), after
        local_h = run("local", self.local_mixer, h, keys[0])
        assert self.global_norm is not None
        global_h = self.global_norm(global_h, context.segment_ids)
        if self.combine == "residual":
            assert self.aggregate is not None
            with place("aggregate"):
                return local_h + self.aggregate(global_h), after
        assert self.local_norm is not None
        local_h = self.local_norm(local_h, context.segment_ids)
        if self.aggregate is not None:
            with place("aggregate"):
                return self.aggregate(jnp.concatenate([global_h, local_h], axis=-1)), after
        return self.add_weight * global_h + (1 - self.add_weight) * local_h, after
