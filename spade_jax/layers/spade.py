"""The SPADE layer: a global and a local mixer side by side, then feed-forward.

    h = Norm(x)                                    (pre-norm; post-norm takes h = x)
    concat:  m = W [Norm_g(global(h)); Norm_l(local(h))] + b
    add:     m = w Norm_g(global(h)) + (1 - w) Norm_l(local(h))
    stack:   m = local(global(h))
    x = x + m;  x = x + FeedForward(Norm(x))       (post-norm: a Norm after each sum)

Without a global mixer m = local(h), an ordinary transformer layer; in a decoder cross-attention
comes between the two.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config import LayerSpec, ModelConfig
from spade_jax.layers.attention import AttentionKind, CrossAttention, SelfAttention
from spade_jax.layers.feed_forward import FeedForward
from spade_jax.layers.linear import Linear, Norm, dropout, split_key
from spade_jax.layers.ssm import SSM


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
        h = self._before(self.mixer_norm, x)
        h = self._mix(h, segment_ids, biases.get(self.kind), keys[0])
        x = self._after(self.mixer_norm, x, h, keys[1])
        if self.cross_attention is not None:
            assert self.cross_norm is not None
            assert encoded is not None
            h = self.cross_attention(
                self._before(self.cross_norm, x),
                encoded,
                segment_ids=segment_ids,
                encoded_segment_ids=encoded_segment_ids,
                dropout_key=keys[2],
            )
            x = self._after(self.cross_norm, x, h, keys[3])
        h = self._before(self.feed_forward_norm, x)
        h = self.feed_forward(h, dropout_key=keys[4])
        return self._after(self.feed_forward_norm, x, h, keys[5])

    def _before(self, norm: Norm, x: jax.Array) -> jax.Array:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: Norm, x: jax.Array, h: jax.Array, key: jax.Array | None) -> jax.Array:
        x = x + dropout(h, self.dropout_rate, key)
        return x if self.pre_norm else norm(x)

    def _mix(
        self,
        h: jax.Array,
        segment_ids: jax.Array | None,
        bias: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        if self.global_mixer is None:
            return self.local_mixer(h, segment_ids=segment_ids, bias=bias, dropout_key=key)
        around = self.global_mixer(h, segment_ids=segment_ids)
        if self.combine == "stack":
            return self.local_mixer(around, segment_ids=segment_ids, bias=bias, dropout_key=key)
        near = self.local_mixer(h, segment_ids=segment_ids, bias=bias, dropout_key=key)
        assert self.global_norm is not None
        assert self.local_norm is not None
        around, near = self.global_norm(around), self.local_norm(near)
        if self.aggregate is not None:
            return self.aggregate(jnp.concatenate([around, near], axis=-1))
        return self.add_weight * around + (1 - self.add_weight) * near
