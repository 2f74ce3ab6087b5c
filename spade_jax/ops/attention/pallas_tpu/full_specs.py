"""What the kernels of full attention are made for, and which pieces of arrays a step of their grid
has."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, Heads, by_group, filled_up, to_lanes
from spade_jax.ops.attention.shards import DropoutWords


class Full(NamedTuple):
    """What the kernels are made for.

    Attributes:
      chunk: keys at a time, 128 or a multiple of 256.
      tiled: there is a vector of what queries add to scores.
      biased: it has a gradient.
      causal: chunks that no query of a block sees are left out.
      first_key: where it is known when this is compiled, else None.
      dropout_rate: 0 where there are no words.
    """

    heads: Heads
    chunk: int
    tiled: bool
    biased: bool
    causal: bool
    first_key: int | None
    dropout_rate: float
    interpret: bool

    @property
    def parts(self) -> int:
        """In how many parts a chunk is gone through."""
        return 1 if self.chunk == BLOCK else 2

    @property
    def part(self) -> int:
        """Keys of one."""
        return self.chunk // self.parts

    def lengths(self, q: Array, k: Array) -> tuple[int, int]:
        """Of queries and keys, with those that fill up the last block and chunk."""
        n, m = q.shape[1], k.shape[1]
        return -(-n // BLOCK) * BLOCK, -(-m // self.chunk) * self.chunk


class Specs:
    """The grid, and the blocks of arrays that a step has."""

    def __init__(self, q: Array, k: Array, full: Full):
        b, heads = q.shape[0], full.heads
        n, m = full.lengths(q, k)
        self.full, self.n, self.m = full, n, m
        self.grid = (heads.groups, b, n // BLOCK)
        self.query = pl.BlockSpec((1, BLOCK, heads.lanes), lambda g, b, i: (b, i, g))
        self.key = pl.BlockSpec((1, m, heads.lanes), lambda g, b, i: (b, 0, g))
        self.vector = pl.BlockSpec((1, heads.in_group, n + m), lambda g, b, i: (g, 0, 0))
        self.log_sum = pl.BlockSpec((1, 1, heads.in_group, BLOCK), lambda g, b, i: (b, g, 0, i))
        self.log_sum_shape = (b, heads.groups, heads.in_group, n)
        self.inputs = [
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *[self.vector] * full.tiled,
            self.query,
            self.key,
            self.key,
            pl.BlockSpec((1, 1, BLOCK), lambda g, b, i: (b, 0, i)),
            pl.BlockSpec((1, 1, m), lambda g, b, i: (b, 0, 0)),
        ]
        if full.dropout_rate > 0:
            self.inputs += [self.log_sum, pl.BlockSpec((1, 1, m), lambda g, b, i: (0, 0, 0))]
        self.turned = pltpu.VMEM((heads.lanes, m), q.dtype)
        # Of the part at hand and of the next one, of all heads.
        part = (heads.in_group, full.part, BLOCK)
        self.slots = [pltpu.VMEM(part, jnp.float32)] * full.parts
        # Segments of keys, and their words for dropout, down the rows.
        self.columns = [pltpu.VMEM((m, BLOCK), jnp.int32)]
        if full.dropout_rate > 0:
            self.columns.append(pltpu.VMEM((m, BLOCK), jnp.uint32))

    def result(self, array: Array, length: int) -> jax.ShapeDtypeStruct:
        """What comes of q, k or v, of so many."""
        heads = self.full.heads
        width = heads.groups * heads.lanes
        return jax.ShapeDtypeStruct((array.shape[0], length, width), array.dtype)

    def tiles(self, count: int) -> list[Any]:
        """So many long tiles, if there is a vector."""
        shape = (self.full.heads.in_group, self.n - BLOCK + self.m, BLOCK)
        return [pltpu.VMEM(shape, jnp.float32)] * (count if self.full.tiled else 0)


def inputs(
    specs: Specs,
    q: Array,
    k: Array,
    v: Array,
    vector: Array | None,
    query_segments: Array,
    key_segments: Array,
    first_key: Array,
    words: DropoutWords | None,
) -> list[Array]:
    """In the order in which the kernels take them, filled up, all but the queries: where they are
    too few, what the last block reads behind them is anything."""
    heads, n, m = specs.full.heads, specs.n, specs.m
    vectors = [] if vector is None else [vector]
    arrays = [
        first_key,
        *vectors,
        to_lanes(q, heads, q.shape[1]),
        to_lanes(k, heads, m),
        to_lanes(v, heads, m),
        filled_up(query_segments, n, axis=1)[:, None],
        filled_up(key_segments, m, axis=1)[:, None],
    ]
    if words is not None:
        key_words = filled_up(words.key_j, m, axis=0)[None, None]
        arrays += [by_group(words.query_bhq, heads, n), key_words]
    return arrays


class Refs(NamedTuple):
    """The inputs of a step, and what it has in memory for a row: `turned`, the columns of segments
    and words, and for all rows the long tile."""

    first_key: Any
    vector: Any
    q: Any
    k: Any
    v: Any
    query_segments: Any
    key_segments: Any
    query_words: Any
    key_words: Any
    turned: Any
    segment_columns: Any
    word_columns: Any
    tile: Any


def taken(refs: tuple[Any, ...], others: int, full: Full) -> tuple[Refs, list[Any], list[Any]]:
    """Inputs and memory; of the `others`, inputs and outputs, and of what else is in memory."""
    left = iter(refs)
    dropping = full.dropout_rate > 0
    inputs = [
        next(left),
        next(left) if full.tiled else None,
        *[next(left) for _ in range(5)],
        *[next(left) if dropping else None for _ in range(2)],
    ]
    between = [next(left) for _ in range(others)]
    memory = [
        next(left),
        next(left),
        next(left) if dropping else None,
        next(left) if full.tiled else None,
    ]
    return Refs(*inputs, *memory), between, list(left)
