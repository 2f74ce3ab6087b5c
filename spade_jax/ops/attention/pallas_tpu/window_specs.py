"""What the kernels of window attention are made for, and which pieces of arrays a step of their
grid has."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, Heads, by_group, filled_up, to_lanes
from spade_jax.ops.attention.shards import DropoutWords


class Window(NamedTuple):
    """What the kernels are made for.

    Attributes:
      before, behind: blocks of keys that a block of queries sees beside its own.
      span: queries of a step, whole multiples of the blocks before.
      biased: the vector has a gradient.
      dropout_rate: 0 where there are no words.
    """

    heads: Heads
    before: int
    behind: int
    span: int
    biased: bool
    dropout_rate: float
    interpret: bool

    @property
    def blocks(self) -> int:
        """Of keys, for one of queries."""
        return self.before + 1 + self.behind

    @property
    def ring(self) -> int:
        """Entries of the vector: at c - r, cyclically, what query r adds to key c of the tile."""
        return (self.blocks + 1) * BLOCK


class Specs:
    """The blocks of arrays that a step has; in the `late` steps after the last span, this one's."""

    def __init__(self, q: Array, window: Window, late: int):
        span, heads = window.span, window.heads
        self.heads = heads
        steps = -(-q.shape[1] // span)
        self.length, self.width = steps * span, heads.groups * heads.lanes
        reach = window.before * BLOCK
        in_span = span // reach

        def here(n: Any) -> Any:
            return jnp.minimum(n, steps - 1) if late else n

        # The blocks before a span, the span, those behind it: how long, and where in units of that.
        # Beyond the ends of the row lies something that is seen by nobody.
        sides: list[tuple[int, Any]] = [
            (reach, lambda n: jnp.maximum(here(n) * in_span - 1, 0)),
            (span, here),
            (reach, lambda n: jnp.minimum((here(n) + 1) * in_span, steps * in_span - 1)),
        ]
        self.steps, self.sides = steps, sides if window.behind else sides[:2]
        keys = [
            pl.BlockSpec((1, size, heads.lanes), lambda g, b, n, at=at: (b, at(n), g))
            for size, at in self.sides
        ]
        segments = [
            pl.BlockSpec((1, 1, size), lambda g, b, n, at=at: (b, 0, at(n)))
            for size, at in self.sides
        ]
        key_words = [
            pl.BlockSpec((1, 1, size), lambda g, b, n, at=at: (0, 0, at(n)))
            for size, at in self.sides
        ]
        query_words = pl.BlockSpec((1, 1, heads.in_group, span), lambda g, b, n: (b, g, 0, here(n)))
        self.query = keys[1]
        self.vector = pl.BlockSpec((1, heads.in_group, window.ring), lambda g, b, n: (g, 0, 0))
        self.inputs = [self.vector, self.query, *keys, *keys, *segments]
        if window.dropout_rate > 0:
            self.inputs += [query_words, *key_words]

    def filled(self, array: Array) -> jax.ShapeDtypeStruct:
        """What comes of q, k or v."""
        return jax.ShapeDtypeStruct((array.shape[0], self.length, self.width), array.dtype)


def inputs(
    q: Array,
    k: Array,
    v: Array,
    vector: Array,
    segments: Array,
    words: DropoutWords | None,
    specs: Specs,
) -> list[Array]:
    """In the order in which the kernels take them, filled up."""
    heads, sides = specs.heads, len(specs.sides)
    q, k, v = (to_lanes(array, heads, specs.length) for array in (q, k, v))
    segments = filled_up(segments, specs.length, axis=1)[:, None]
    arrays = [vector, q, *[k] * sides, *[v] * sides, *[segments] * sides]
    if words is not None:
        key_words = filled_up(words.key_j, specs.length, axis=0)[None, None]
        arrays += [by_group(words.query_bhq, heads, specs.length), *[key_words] * sides]
    return arrays


class Refs(NamedTuple):
    """The inputs of a step."""

    vector: Any
    q: Any
    keys: Any
    values: Any
    segments: Any
    query_words: Any
    key_words: Any


def taken(refs: tuple[Any, ...], window: Window) -> tuple[Refs, tuple[Any, ...]]:
    """The inputs, and what follows them."""
    left = iter(refs)

    def sides() -> list[Any]:
        return list(itertools.islice(left, 3 if window.behind else 2))

    dropping = window.dropout_rate > 0
    inputs = Refs(
        next(left),
        next(left),
        sides(),
        sides(),
        sides(),
        next(left) if dropping else None,
        sides() if dropping else [],
    )
    return inputs, tuple(left)
