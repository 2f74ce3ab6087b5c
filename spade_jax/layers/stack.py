"""A stack of layers from its pattern, with repeated groups of layers stacked and scanned."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config.model import ModelConfig, StackConfig
from spade_jax.config.pattern import Group
from spade_jax.elements import KEPT, Norm, Statistic, dropout, normal, rounded, split_key
from spade_jax.layers.block import Block, BlockCache
from spade_jax.layers.cross_attention import Encoded
from spade_jax.mixers.attention.relative_bias import RelativeBias
from spade_jax.mixers.base import Cache, Context
from spade_jax.ops.attention.softmax import ATTENDED
from spade_jax.ops.ssm.kernel import STATE_SPACE
from spade_jax.places import place


class StackCache(NamedTuple):
    """What a stack keeps of the tokens before.

    Attributes:
      common: of all layers: how many tokens there were, and the relative biases.
      layers: of each layer, bottom first.
    """

    common: Cache
    layers: list[BlockCache]


class LayerGroup(nnx.Module):
    """Layers that follow one another and are repeated together."""

    def __init__(self, blocks: list[Block]):
        for i, block in enumerate(blocks):
            setattr(self, f"layer_{i}", block)
        self.count = len(blocks)

    def blocks(self) -> Iterator[Block]:
        for i in range(self.count):
            yield getattr(self, f"layer_{i}")


def _blocks(layers: Block | LayerGroup) -> list[Block]:
    return [layers] if isinstance(layers, Block) else [*layers.blocks()]


class Stack(nnx.Module):
    """An encoder, a decoder or a language model's layers, from embeddings on.

    A group of layers that repeats is one `Block` (or `LayerGroup` of several) whose parameters have
    a leading axis; whether it is scanned or looped over is a matter of execution alone.
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
        self.config, self.groups, self.training = config, stack.groups, False
        self.mixers = frozenset(name for spec in stack.layer_specs for name in spec.mixers)
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
        shared = stack.relative_bias == "shared" and bool(self._reaches(2))
        self.relative_bias = RelativeBias(config, causal=causal, rngs=rngs) if shared else None

        def build(key: jax.Array, group: Group) -> Block | LayerGroup:
            rngs = nnx.Rngs(params=key)
            blocks = [
                Block(
                    config,
                    stack,
                    spec,
                    causal=causal,
                    cross_attention=cross_attention,
                    rngs=rngs,
                )
                for spec in group.layers
            ]
            return blocks[0] if len(blocks) == 1 else LayerGroup(blocks)

        for i, group in enumerate(self.groups):
            create = functools.partial(build, group=group)
            if group.repeat == 1:
                layers = create(rngs.params())
            else:
                layers = nnx.vmap(create)(jax.random.split(rngs.params(), group.repeat))
            setattr(self, f"layers_{i}", layers)

    @place("embedding")
    def __call__(
        self,
        x: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        encoded: Encoded | None = None,
        cache: StackCache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, StackCache | None]:
        """Embeddings [b, l, d] -> [b, l, d], and the cache with these tokens; None without one.

        Args:
          segment_ids: [b, l]; 0 is padding; None is all one segment.
          positions: [b, l], of tokens in their segments, for what knows absolute positions; None
            counts from the first token on.
          encoded: the encoder's output, for cross-attention; a cache knows it.
          cache: of the tokens before; with it x is the next ones.
          dropout_key: None drops nothing.

        Raises:
          ValueError: a sequence longer than the table of positions.
        """
        config = self.config
        keys = split_key(dropout_key, len(self.groups) + 1 + config.final_dropout)
        start = jnp.int32(0) if cache is None else cache.common.shared[0]
        if cache is not None and segment_ids is None:
            segment_ids = jnp.ones(x.shape[:2], jnp.int32)
        if self.position_table is not None:
            self._check_positions(x.shape[1])
            x = x + self._look_up(positions, start, x.shape[1]).astype(x.dtype)
        if positions is None:
            positions = (start + jnp.arange(x.shape[1], dtype=jnp.int32))[None]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x, segment_ids)
        x = partition.constrain(dropout(x, config.dropout_rate, keys[0]), *_AXES)
        biases = self._biases(x.shape[1]) if cache is None else cache.common.shared[1]
        context = Context(segment_ids, positions, start, biases)
        if cache is None:
            x = self._run(x, context, encoded, keys[1:])
        else:
            layers = []
            for block, own in zip(self.blocks(), cache.layers, strict=True):
                x, after = block(x, context, cache=own)
                assert after is not None
                layers.append(after)
            cache = StackCache(Cache(None, (start + x.shape[1], biases)), layers)
        if self.final_norm is not None:
            x = self.final_norm(x, segment_ids)
        if config.final_dropout:
            x = dropout(x, config.dropout_rate, keys[-1])
        return x, cache

    def init_cache(self, rows: int, length: int, encoded: Encoded | None = None) -> StackCache:
        """The cache before the first token.

        Args:
          rows: how many sequences; with `encoded` a multiple of its rows (see `CrossAttention`).
          length: how many tokens there will be at most.

        Raises:
          ValueError: a length beyond the table of positions.
        """
        self._check_positions(length)
        dtype = self.config.dtype
        layers = [block.init_cache(rows, length, dtype, encoded) for block in self.blocks()]
        return StackCache(Cache(None, (jnp.int32(0), self._biases(length))), layers)

    def take_apart(self) -> None:
        """Makes each repeated layer one of its own, with its own parameters.

        A cache has them apart, since a scan would copy their caches each time. Before a loop over
        tokens this does once what each token would do anew: copy them out of the stacked ones.
        """
        blocks = [*self.blocks()]
        specs = [spec for group in self.groups for spec in group.layers * group.repeat]
        self.groups = tuple(Group((spec,)) for spec in specs)
        for i, block in enumerate(blocks):
            setattr(self, f"layers_{i}", block)

    @place("loop over layers")
    def _run(
        self,
        x: jax.Array,
        context: Context,
        encoded: Encoded | None,
        keys: list[jax.Array | None],
    ) -> jax.Array:
        """The layers over a whole sequence, groups scanned."""
        config = self.config
        for i, (group, key) in enumerate(zip(self.groups, keys)):
            layers = getattr(self, f"layers_{i}")
            graph, state = nnx.split(layers)

            def step(x, inputs, graph=graph):
                layer_state, key = inputs
                layers = nnx.merge(graph, layer_state)
                blocks = _blocks(layers)
                own_keys = [key] if len(blocks) == 1 else split_key(key, len(blocks))
                for block, own_key in zip(blocks, own_keys):
                    x, _ = block(x, context, encoded=encoded, dropout_key=own_key)
                return partition.constrain(x, *_AXES), nnx.state(layers, Statistic)

            scans = group.repeat > 1 and self._scans(group.repeat)
            if not scans:
                # Once for all layers and passes; a loop rounds a layer's at a time.
                state = rounded(state, x.dtype)
            if config.remat != "none":
                # Out of a loop XLA would find that it is computed twice, and keep it after all.
                step = jax.checkpoint(step, policy=_POLICIES[config.remat], prevent_cse=not scans)
            if group.repeat == 1:
                x, measured = step(x, (state, key))
            else:
                group_keys = None if key is None else jax.random.split(key, group.repeat)
                run = jax.lax.scan if scans else _loop
                x, measured = run(step, x, (state, group_keys))
            if self.training:
                nnx.update(layers, measured)
        return x

    def _scans(self, repeat: int) -> bool:
        if self.config.scan_layers is not None:
            return self.config.scan_layers
        return repeat > _ONE_BY_ONE.get(partition.platform(), 1)

    def blocks(self) -> Iterator[Block]:
        """The layers one by one, bottom first."""
        for i, group in enumerate(self.groups):
            layers = getattr(self, f"layers_{i}")
            if group.repeat == 1:
                yield from _blocks(layers)
                continue
            graph, state = nnx.split(layers)
            for j in range(group.repeat):
                yield from _blocks(nnx.merge(graph, jax.tree.map(lambda a, j=j: a[j], state)))

    def _reaches(self, length: int) -> set[int]:
        """How far the mixers need relative biases in sequences of this length."""
        config = self.config
        reaches = (config.mixers[name].relative_reach(config, length) for name in self.mixers)
        return {reach for reach in reaches if reach is not None}

    def _biases(self, length: int) -> dict[int, jax.Array]:
        if self.relative_bias is None:
            return {}
        return {reach: self.relative_bias(reach) for reach in sorted(self._reaches(length))}

    def _look_up(self, positions: jax.Array | None, start: jax.Array, length: int) -> jax.Array:
        """Rows of the table of positions, [b or 1, l, d]."""
        assert self.position_table is not None
        table = self.position_table[...]
        if positions is None:
            return jax.lax.dynamic_slice_in_dim(table, start, length)[None]
        return jnp.take(table, positions, axis=0, mode="clip")

    def _check_positions(self, length: int) -> None:
        if self.position_table is not None and length > self.position_table.shape[0]:
            raise ValueError(
                f"sequence length = {length}: must be at most max_positions = "
                f"{self.position_table.shape[0]}"
            )


def _loop(step: Any, x: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
    """As `lax.scan`, one step after the other."""
    results = []
    for j in range(len(jax.tree.leaves(inputs)[0])):
        x, result = step(x, jax.tree.map(lambda a, j=j: a[j], inputs))
        results.append(result)
    return x, jax.tree.map(lambda *each: jnp.stack(each), *results)


# How many equal layers run one by one: a CPU runs loops slowly, and a GPU copies what a loop keeps
# (an H200 took 103 ms for what took 115 in loops). So does a TPU (100 for 112 by estimate), but
# what fsdp gathers for all layers is then in memory at once.
_ONE_BY_ONE = {"cpu": 8, "gpu": 24, "tpu": 12}

# Of activations.
_AXES = ("batch", "length", None)

# What the backward pass of a layer finds in memory instead of computing it again.
_POLICIES = {
    # Attention computes its probabilities anew by itself; it need not run a third time. Nor need
    # state spaces, nor what they make of their parameters alone.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(ATTENDED, KEPT, STATE_SPACE),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
