"""The SPADE layer: a global and a local mixer side by side, then feed-forward.

    h = Norm(x)                                    (pre-norm; post-norm takes h = x)
    concat:  m = W [Norm_g(global(h)); Norm_l(local(h))] + b
    add:     m = w Norm_g(global(h)) + (1 - w) Norm_l(local(h))
    stack:   m = local(global(h))
    x = x + m;  x = x + FeedForward(Norm(x))       (post-norm: a Norm after each sum)

Without a global mixer m = local(h), an ordinary transformer layer; in a decoder cross-attention
comes between the two.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config import LayerSpec, ModelConfig
from spade_jax.layers.attention import (
    AttentionKind,
    CrossAttention,
    RelativeBias,
    SelfAttention,
)
from spade_jax.layers.feed_forward import FeedForward
from spade_jax.layers.linear import Linear, Norm, dropout, split_key
from spade_jax.layers.ssm import SSM
from spade_jax.layers.stepwise import Cache, MixerStep

Mixer = Callable[[jax.Array], jax.Array]


class SpadeLayer(nnx.Module):
    """One layer of a stack; see the module's formulas."""

    def __init__(
        self,
        config: ModelConfig,
        spec: LayerSpec,
        *,
        causal: bool,
        cross_attention: bool,
        own_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.pre_norm = config.norm_placement == "pre"
        self.dropout_rate, self.add_weight = config.dropout_rate, config.add_weight
        self.kind: AttentionKind = spec.local_mixer
        self.combine = None if spec.global_mixer is None else spec.combine
        self.mixer_norm = Norm(config)
        self.local_mixer = SelfAttention(
            config, kind=spec.local_mixer, causal=causal, own_bias=own_bias, rngs=rngs
        )
        self.global_mixer = SSM(config, causal=causal, rngs=rngs) if self.combine else None
        side_by_side = self.combine in ("concat", "add")
        self.global_norm = Norm(config) if side_by_side else None
        self.local_norm = Norm(config) if side_by_side else None
        d = config.d_model
        self.aggregate = (
            Linear(("mlp", "embed"), 2 * d, d, bias=True, rngs=rngs)
            if self.combine == "concat"
            else None
        )
        self.cross_norm = Norm(config) if cross_attention else None
        self.cross_attention = CrossAttention(config, rngs=rngs) if cross_attention else None
        self.feed_forward_norm = Norm(config)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        *,
        segment_ids: jax.Array | None,
        biases: dict[AttentionKind, jax.Array],
        encoded: jax.Array | None = None,
        encoded_segment_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """[b, l, d] -> [b, l, d].

        Args:
          segment_ids: [b, l]; 0 is padding; None is all one segment.
          biases: relative biases that the stack shares, by kind of attention.
          encoded: [b, m, d], the encoder's output, for cross-attention; with its segments.
        """
        keys = split_key(dropout_key, 6)
        bias = biases.get(self.kind)

        def near(h: jax.Array) -> jax.Array:
            return self.local_mixer(h, segment_ids=segment_ids, bias=bias, dropout_key=keys[0])

        def around(h: jax.Array) -> jax.Array:
            assert self.global_mixer is not None
            return self.global_mixer(h, segment_ids=segment_ids)

        def across(h: jax.Array) -> jax.Array:
            assert self.cross_attention is not None
            assert encoded is not None
            return self.cross_attention(
                h,
                encoded,
                segment_ids=segment_ids,
                encoded_segment_ids=encoded_segment_ids,
                dropout_key=keys[2],
            )

        return self._compose(x, near, around, across, keys)

    def stepwise(
        self,
        rows: int,
        length: int,
        shared_bias: RelativeBias | None,
        encoded: jax.Array | None,
        encoded_segment_ids: jax.Array | None,
        dtype: str,
    ) -> tuple[MixerStep, Cache]:
        """The causal layer token by token: see `MixerStep`, and the mixers for the arguments."""
        near_step, near_start = self.local_mixer.stepwise(rows, length, shared_bias, dtype)
        around_step, around_start = (
            (None, None) if self.global_mixer is None else self.global_mixer.stepwise(rows, length)
        )
        across_step = None
        if self.cross_attention is not None:
            assert encoded is not None
            across_step = self.cross_attention.stepwise(encoded, encoded_segment_ids)

        def token(
            x: jax.Array, index: jax.Array, segment_ids: jax.Array, cache: Cache
        ) -> tuple[jax.Array, Cache]:
            after = dict(cache)

            def near(h: jax.Array) -> jax.Array:
                h, after["near"] = near_step(h, index, segment_ids, cache["near"])
                return h

            def around(h: jax.Array) -> jax.Array:
                assert around_step is not None
                h, after["around"] = around_step(h, index, segment_ids, cache["around"])
                return h

            def across(h: jax.Array) -> jax.Array:
                assert across_step is not None
                return across_step(h, segment_ids)

            return self._compose(x, near, around, across, split_key(None, 6)), after

        return token, {"near": near_start, "around": around_start}

    def _compose(
        self, x: jax.Array, near: Mixer, around: Mixer, across: Mixer, keys: list[jax.Array | None]
    ) -> jax.Array:
        """The layer from its mixers: local, global, and cross-attention."""
        h = self._mix(self._before(self.mixer_norm, x), near, around)
        x = self._after(self.mixer_norm, x, h, keys[1])
        if self.cross_attention is not None:
            assert self.cross_norm is not None
            x = self._after(self.cross_norm, x, across(self._before(self.cross_norm, x)), keys[3])
        h = self._before(self.feed_forward_norm, x)
        h = self.feed_forward(h, dropout_key=keys[4])
        return self._after(self.feed_forward_norm, x, h, keys[5])

    def _before(self, norm: Norm, x: jax.Array) -> jax.Array:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: Norm, x: jax.Array, h: jax.Array, key: jax.Array | None) -> jax.Array:
        x = x + dropout(h, self.dropout_rate, key)
        return x if self.pre_norm else norm(x)

    def _mix(self, h: jax.Array, near: Mixer, around: Mixer) -> jax.Array:
        if self.global_mixer is None:
            return near(h)
        if self.combine == "stack":
            return near(around(h))
        assert self.global_norm is not None
        assert self.local_norm is not None
        far, close = self.global_norm(around(h)), self.local_norm(near(h))
        if self.aggregate is not None:
            return self.aggregate(jnp.concatenate([far, close], axis=-1))
        return self.add_weight * far + (1 - self.add_weight) * close
