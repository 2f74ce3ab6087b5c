"""A stack of layers from its pattern, with equal layers stacked and scanned."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config import LayerSpec, ModelConfig, StackConfig, require
from spade_jax.layers.attention import RelativeBias
from spade_jax.layers.linear import Norm, dropout, normal, split_key
from spade_jax.layers.spade import SpadeLayer
from spade_jax.layers.stepwise import Cache
from spade_jax.ops.softmax_attention import ATTENDED

StackStep = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]


class Stack(nnx.Module):
    """The encoder or the decoder, from embeddings on.

    A run of equal layers is one `SpadeLayer` whose parameters have a leading axis; whether it is
    scanned or looped over is a matter of execution alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        stack: StackConfig,
        *,
        causal: bool,
        cross_attention: bool,
        rngs: nnx.Rngs,
    ):
        self.config, self.specs = config, stack.specs
        self.position_table = (
            None
            if stack.max_positions is None
            else normal(
                rngs,
                (stack.max_positions, config.d_model),
                config.d_model**-0.5,
                ("positions", "embed"),
            )
        )
        self.embedding_norm = Norm(config) if config.embedding_norm else None
        self.final_norm = Norm(config) if config.final_norm else None
        shared = stack.relative_bias == "shared"
        self.relative_bias = RelativeBias(config, causal=causal, rngs=rngs) if shared else None

        def layer(key: jax.Array, spec: LayerSpec) -> SpadeLayer:
            return SpadeLayer(
                config,
                spec,
                causal=causal,
                cross_attention=cross_attention,
                own_bias=stack.relative_bias == "per_layer",
                rngs=nnx.Rngs(params=key),
            )

        for i, spec in enumerate(self.specs):
            create = functools.partial(layer, spec=spec)
            if spec.repeat == 1:
                run = create(rngs.params())
            else:
                run = nnx.vmap(create)(jax.random.split(rngs.params(), spec.repeat))
            setattr(self, f"layers_{i}", run)

    def __call__(
        self,
        x: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        encoded: jax.Array | None = None,
        encoded_segment_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Embeddings [b, l, d] -> [b, l, d].

        Args:
          segment_ids: [b, l]; 0 is padding; None is all one segment.
          positions: [b, l], of tokens in their segments, for learned positions; None is 0, 1, ….
          encoded, encoded_segment_ids: the encoder's output [b, m, d] and its segments.
          dropout_key: None drops nothing.

        Raises:
          ConfigError: a sequence longer than the table of positions.
        """
        config = self.config
        keys = split_key(dropout_key, len(self.specs) + 1 + config.final_dropout)
        if self.position_table is not None:
            x = x + _look_up(self.position_table[...], x, positions)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = partition.constrain(dropout(x, config.dropout_rate, keys[0]), *_AXES)

        biases = {}
        if self.relative_bias is not None:
            kinds = {spec.local_mixer for spec in self.specs}
            biases = {kind: self.relative_bias(kind, x.shape[1]) for kind in sorted(kinds)}

        def run_layer(layer: SpadeLayer, x: jax.Array, key: jax.Array | None) -> jax.Array:
            return layer(
                x,
                segment_ids=segment_ids,
                biases=biases,
                encoded=encoded,
                encoded_segment_ids=encoded_segment_ids,
                dropout_key=key,
            )

        for i, (spec, key) in enumerate(zip(self.specs, keys[1:])):
            graph, state = nnx.split(getattr(self, f"layers_{i}"))

            def step(x, inputs, graph=graph):
                layer_state, key = inputs
                x = run_layer(nnx.merge(graph, layer_state), x, key)
                return partition.constrain(x, *_AXES), None

            if config.remat != "none":
                step = jax.checkpoint(step, policy=_POLICIES[config.remat], prevent_cse=False)
            if spec.repeat == 1:
                x, _ = step(x, (state, key))
                continue
            layer_keys = None if key is None else jax.random.split(key, spec.repeat)
            if config.scan_layers:
                x, _ = jax.lax.scan(step, x, (state, layer_keys))
            else:
                for j in range(spec.repeat):
                    x, _ = step(x, jax.tree.map(lambda a, j=j: a[j], (state, layer_keys)))
        if self.final_norm is not None:
            x = self.final_norm(x)
        return dropout(x, config.dropout_rate, keys[-1]) if config.final_dropout else x

    def stepwise(
        self,
        rows: int,
        length: int,
        *,
        encoded: jax.Array | None = None,
        encoded_segment_ids: jax.Array | None = None,
    ) -> tuple[StackStep, Cache]:
        """The causal stack token by token: (x, index, segment_ids, positions, cache) -> (y, cache).

        As `MixerStep`, where x are embeddings and positions [b, 1] those in the segments.

        Runs of equal layers are taken apart once, here: a scan would copy their caches each time.

        Args:
          rows: b, how many sequences.
          length: how many tokens there will be at most.
          encoded, encoded_segment_ids: the encoder's output [b, m, d] and its segments; rows may
            be a multiple of b, see `CrossAttention.stepwise`.

        Raises:
          ConfigError: a length beyond the table of positions.
        """
        if self.position_table is not None:
            _require_positions(length, self.position_table.shape[0])
        parts = [
            layer.stepwise(
                rows, length, self.relative_bias, encoded, encoded_segment_ids, self.config.dtype
            )
            for layer in self._layers()
        ]

        def token(
            x: jax.Array,
            index: jax.Array,
            segment_ids: jax.Array,
            positions: jax.Array,
            cache: Cache,
        ) -> tuple[jax.Array, Cache]:
            if self.position_table is not None:
                x = x + _look_up(self.position_table[...], x, positions)
            if self.embedding_norm is not None:
                x = self.embedding_norm(x)
            after = []
            for (step, _), layer_cache in zip(parts, cache):
                x, layer_cache = step(x, index, segment_ids, layer_cache)
                after.append(layer_cache)
            return x if self.final_norm is None else self.final_norm(x), after

        return token, [start for _, start in parts]

    def _layers(self) -> Iterator[SpadeLayer]:
        """The layers one by one, bottom first."""
        for i, spec in enumerate(self.specs):
            run = getattr(self, f"layers_{i}")
            if spec.repeat == 1:
                yield run
                continue
            graph, state = nnx.split(run)
            for j in range(spec.repeat):
                yield nnx.merge(graph, jax.tree.map(lambda a, j=j: a[j], state))


# Of activations.
_AXES = ("batch", "length", None)

# What the backward pass of a layer finds in memory instead of computing it again.
_POLICIES = {
    # Attention computes its probabilities anew by itself; it need not run a third time.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(ATTENDED),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _look_up(table: jax.Array, x: jax.Array, positions: jax.Array | None) -> jax.Array:
    """Rows of a table [p, d] for the tokens of x [b, l, d]: [b or 1, l, d]."""
    _require_positions(x.shape[1], table.shape[0])
    if positions is None:
        return table[None, : x.shape[1]].astype(x.dtype)
    return jnp.take(table, positions, axis=0, mode="clip").astype(x.dtype)


def _require_positions(length: int, positions: int) -> None:
    require(
        length <= positions,
        "sequence length",
        length,
        f"must be at most max_positions = {positions}",
    )
