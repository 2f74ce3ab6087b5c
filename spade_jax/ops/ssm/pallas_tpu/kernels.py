"""The chunked state space as two TPU kernels: forward, and all of its gradients.

A step of the grid has all blocks of all rows of a few features, which run side by side: what their
blocks write, then the states carried from block to block, then what is read. States stay in vector
memory meanwhile. Both directions are carried at once: one comes from the first block, the other
from the last.

Where runs end within blocks, inputs and outputs are masked as `chunked` says; the masks are bits of
one number for each token.

Shape letters: d features, b batch, m blocks, r = b m rows, t block length, n lanes of a state, all
directions side by side, filled up to a multiple of 128.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.products import product
from spade_jax.ops.ssm.kernel import keep
from spade_jax.ops.ssm.pallas_tpu.operations import TILE
from spade_jax.ops.tpu import VMEM_BYTES
from spade_jax.places import place

# Rows that a product has, at most.
_ROWS = 256


class Shape(NamedTuple):
    """What a kernel is made for.

    Attributes:
      blocks: m.
      features: that a step of the grid has.
      directions: of each state that lies in the lanes, from the first lane on.
      lanes: of one direction.
      packed: whether runs may end within blocks.
      dtype: of y.
      interpret: whether the kernels are interpreted.
    """

    blocks: int
    features: int
    directions: tuple[int, ...]
    lanes: int
    packed: bool
    dtype: Any
    interpret: bool


class Given(NamedTuple):
    """What both kernels take.

    Attributes:
      x: inputs, [d, r, t].
      matrices: [d, t, t], from inputs to outputs.
      write: [d, t, n], from inputs to states.
      read: [d, t, n], to outputs from states.
      skip: what an input itself weighs in its output, float32 [d, 1, t].
      change: (A^t - I)^T of one direction, float32.
      masks: int32 [r, t]; see `operations`. None: nothing is masked.
      keep: float32 [r, n], 0 where a state ends on its way through a block. None: none does.
    """

    x: Any
    matrices: Any
    write: Any
    read: Any
    skip: Any
    change: Any
    masks: Any
    keep: Any


# Of what is given, the first ones are for each feature, and have gradients.
_OF_FEATURES = Given._fields.index("masks")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(shape: Shape, given: Given) -> tuple[Array, Array]:
    """y [d, r, t], and the states that enter the blocks, float32 [d, r, n]."""
    y = jax.ShapeDtypeStruct(given.x.shape, shape.dtype)
    entering = jax.ShapeDtypeStruct((*given.x.shape[:2], given.write.shape[2]), jnp.float32)
    return _call(_forward_kernel, shape, given, (), (y, entering), "state_space_forward")


def _run_forward(shape, given):
    y, entering = run(shape, given)
    entering = keep(entering)
    return (y, entering), (given, entering)


def _run_backward(shape, saved, cotangents):
    given, entering = saved
    gradients = _call(
        _backward_kernel,
        shape,
        given,
        (entering, cotangents[0]),
        tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in given[:_OF_FEATURES]),
        "state_space_backward",
    )
    names = Given._fields[: len(gradients)]
    return (Given(masks=None, keep=None, **dict(zip(names, gradients, strict=True))),)


run.defvjp(_run_forward, _run_backward)


@place("state space convolution")
def _call(
    kernel: Any,
    shape: Shape,
    given: Given,
    further: tuple[Array, ...],
    outs: tuple[jax.ShapeDtypeStruct, ...],
    name: str,
) -> Any:
    """A kernel over the features; masks are the same for all."""
    of_features = [*given[:_OF_FEATURES], *further]
    shared = [x for x in given[_OF_FEATURES:] if x is not None]

    def spec(x: Any) -> pl.BlockSpec:
        return pl.BlockSpec((shape.features, *x.shape[1:]), lambda i: (i, 0, 0))

    # States that blocks add, and those that are carried, of each direction by itself.
    states = [
        pltpu.VMEM((shape.features, given.x.shape[1], lanes), jnp.float32)
        for lanes in (given.write.shape[2], *(shape.lanes for _ in shape.directions))
    ]
    return pl.pallas_call(
        functools.partial(kernel, shape=shape),
        grid=(given.x.shape[0] // shape.features,),
        in_specs=[
            *map(spec, of_features),
            *(pl.BlockSpec(x.shape, lambda i: (0, 0)) for x in shared),
        ],
        out_specs=[*map(spec, outs)],
        out_shape=list(outs),
        scratch_shapes=states,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=shape.interpret,
        name=name,
    )(*of_features, *shared)


class _Group:
    """Rows of blocks that are multiplied at once, r of them, with what masks them."""

    def __init__(self, given: Given, rows: Any, shape: Shape):
        self.shape, self.operand = shape, given.x
        self.words = given.masks[rows] if shape.packed else None

    def written(self, x: Array, write: Array) -> Array:
        """The states [r, n] that blocks x [r, t] leave, of zeros before them."""
        inputs = [x] if self.words is None else [self._of(x, s) for s in self._ways]
        return self._own([self._product("rt,tn->rn", each, write) for each in inputs])

    def read(self, states: Array, read: Array) -> Array:
        """What the states that enter blocks add to their outputs, [r, t]."""
        if self.words is None:
            return self._product("rn,tn->rt", states, read)
        y: Any = 0.0
        for s, own in zip(self._ways, self._apart(states)):
            y = y + self._of(self._product("rn,tn->rt", own, read), len(self._ways) + s)
        return y

    def within(self, x: Array, matrices: Array) -> Array:
        """What inputs add to outputs of their own blocks, [r, t]."""
        if self.words is None:
            return self._product("rt,tk->rk", x, matrices)
        parted = _parted(matrices.shape[0])
        y = x * jnp.sum(jnp.where(parted == 0, matrices, 0.0), axis=0, keepdims=True)
        for k in range(1, matrices.shape[0].bit_length()):
            bit = 2 * len(self._ways) + k - 1
            of_round = jnp.where(parted == k, matrices, 0.0)
            y = y + self._of(self._product("rt,tk->rk", self._of(x, bit), of_round), bit)
        return y

    def outputs(self, x: Array, states: Array, matrices: Array, read: Array, skip: Array) -> Array:
        """y [r, t] of inputs and the states that enter."""
        return self.within(x, matrices) + self.read(states, read) + skip * x

    @property
    def _ways(self) -> range:
        return range(len(self.shape.directions))

    def _product(self, equation: str, x: Array, y: Array) -> Array:
        return product(equation, x, y, beside=self.operand)

    def _of(self, x: Array, bit: int) -> Array:
        """x [r, t] where a bit of the masks is set, else 0."""
        assert self.words is not None
        return jnp.where((self.words & (1 << bit)) != 0, x, 0.0)

    def _own(self, states: list[Array]) -> Array:
        """Of states for each direction, its own lanes."""
        if len(states) == 1:
            return states[0]
        return jnp.where(self._first(states[0]), states[0], states[1])

    def _apart(self, states: Array) -> list[Array]:
        """States with zeros in the lanes of the other direction, for each."""
        if len(self._ways) == 1:
            return [states]
        first = self._first(states)
        return [jnp.where(first, states, 0.0), jnp.where(first, 0.0, states)]

    def _first(self, states: Array) -> Array:
        """Whether lanes are those of the first direction."""
        return lax.broadcasted_iota(jnp.int32, states.shape, 1) < self.shape.lanes


def _parted(t: int) -> Array:
    """Which of `chunked.before_cuts` parts two places of a block, from 1 on."""
    places = lax.broadcasted_iota(jnp.int32, (t, t), 0) ^ lax.broadcasted_iota(jnp.int32, (t, t), 1)
    reached = [(places >= 1 << k).astype(jnp.int32) for k in range((t - 1).bit_length())]
    return functools.reduce(jnp.add, reached)


def _for_each_group(given: Given, shape: Shape, do: Callable[[Any, Any, _Group], None]) -> None:
    """Does something with each feature, and its rows in groups of as many as there are at most."""
    count = given.x.shape[1]
    size = max(k for k in range(TILE, _ROWS + 1, TILE) if count % k == 0)
    groups = count // size

    def step(i: Any, _: None) -> None:
        rows = pl.ds(pl.multiple_of(lax.rem(i, groups) * size, TILE), size)
        do(lax.div(i, groups), rows, _Group(given, rows, shape))

    lax.fori_loop(0, shape.features * groups, step, None)


def _carry(source: Any, given: Given, outs: Any, shape: Shape, *, reverse: bool) -> None:
    """Carries states through the blocks, each direction in its order or, reversed, against it: on
    the way through a block they turn by A^t and what `source` has of the block is added. What comes
    to the block is left in `outs`, one for each direction."""
    rows, size = source.shape[1], shape.lanes
    blocks, batch = shape.blocks, rows // shape.blocks
    signs = [-way if reverse else way for way in shape.directions]
    changes = [given.change[g].T if reverse else given.change[g] for g in range(shape.features)]
    parts = [[part.astype(jnp.bfloat16) for part in _parts(change)] for change in changes]

    def of_block(k: Any, sign: int) -> Any:
        return pl.ds(k if sign == 1 else blocks - 1 - k, batch, stride=blocks)

    def taken(ref: Any, k: Any) -> Array:
        """Of the lanes of all directions, [directions b, n]."""
        return jnp.concatenate(
            [
                ref[of_block(k, sign), :][:, s * size : (s + 1) * size]
                for s, sign in enumerate(signs)
            ]
        )

    def step(k: Any, states: tuple[Array, ...]) -> tuple[Array, ...]:
        passes = taken(given.keep, k) if shape.packed else 1.0
        following = []
        for g, state in enumerate(states):
            for s, (out, sign) in enumerate(zip(outs, signs)):
                out.at[g][of_block(k, sign), :] = state[s * batch : (s + 1) * batch]
            carried = state + _exact_product(state, parts[g])
            following.append(carried * passes + taken(source.at[g], k))
        return tuple(following)

    start = jnp.zeros((len(signs) * batch, size), jnp.float32)
    lax.fori_loop(0, blocks, step, (start,) * shape.features)


def _parts(x: Array) -> list[Array]:
    """Float32 as the sum of three that bfloat16 has exactly: 8 bits of its 24 each."""
    parts = []
    for _ in range(3):
        bits = lax.bitcast_convert_type(x, jnp.int32) & -(1 << 16)
        parts.append(lax.bitcast_convert_type(bits, jnp.float32))
        x = x - parts[-1]
    return parts


def _exact_product(x: Array, y_parts: list[Array]) -> Array:
    """x y in float32, for few rows of x and `_parts` of y: each of these is loaded into the matrix
    unit once, where the compiler's own product loads it for each part of x that meets it."""
    count = len(x)
    x_parts = _parts(x)
    total: Any = 0.0
    for i in reversed(range(3)):
        met = jnp.concatenate(x_parts[: 3 - i]).astype(jnp.bfloat16)
        products = jnp.dot(met, y_parts[i], preferred_element_type=jnp.float32)
        for j in reversed(range(3 - i)):
            total = total + products[j * count : (j + 1) * count]
    return total


def _split(refs: Any, shape: Shape, further: int) -> tuple[Given, Any, Any]:
    """What the kernels are given: `Given`, what else there is, and outputs and scratch memory."""
    of_features, rest = refs[: _OF_FEATURES + further], refs[_OF_FEATURES + further :]
    shared, rest = (rest[:2], rest[2:]) if shape.packed else ((None, None), rest)
    return Given(*of_features[:_OF_FEATURES], *shared), of_features[_OF_FEATURES:], rest


def _side_by_side(carried: Any, g: Any, rows: Any, lanes: int) -> Array:
    """What `_carry` left, with directions side by side in lanes."""
    states = jnp.concatenate([each[g, rows] for each in carried], axis=1)
    return jnp.pad(states, ((0, 0), (0, lanes - states.shape[1])))


def _forward_kernel(*refs: Any, shape: Shape) -> None:
    given, _, (y, entering, added, *carried) = _split(refs, shape, 0)

    def write(g: Any, rows: Any, group: _Group) -> None:
        added[g, rows] = group.written(_wide(given.x[g, rows]), given.write[g])

    def read(g: Any, rows: Any, group: _Group) -> None:
        x, states = _wide(given.x[g, rows]), _side_by_side(carried, g, rows, added.shape[2])
        entering[g, rows] = states
        found = group.outputs(x, states, given.matrices[g], given.read[g], given.skip[g])
        y[g, rows] = found.astype(y.dtype)

    _for_each_group(given, shape, write)
    _carry(added, given, carried, shape, reverse=False)
    _for_each_group(given, shape, read)


def _backward_kernel(*refs: Any, shape: Shape) -> None:
    given, (entering, d_y), rest = _split(refs, shape, 2)
    (d_x, *gradients), (added, *carried) = rest[:_OF_FEATURES], rest[_OF_FEATURES:]

    def unread(g: Any, rows: Any, group: _Group) -> None:
        read = given.read[g]
        _, pullback = jax.vjp(lambda states: group.read(states, read), entering[g, rows])
        (added[g, rows],) = pullback(_wide(d_y[g, rows]))

    def undo(g: Any, rows: Any, group: _Group) -> None:
        states, later = entering[g, rows], _side_by_side(carried, g, rows, added.shape[2])

        def run(x: Array, matrices: Array, write: Array, read: Array, skip: Array) -> Any:
            y = group.outputs(x, states, matrices, read, skip)
            return y, group.written(x, write)

        operators = given.matrices[g], given.write[g], given.read[g], given.skip[g]
        _, pullback = jax.vjp(run, _wide(given.x[g, rows]), *operators)
        of_x, *new = pullback((_wide(d_y[g, rows]), later))
        d_x[g, rows] = of_x.astype(d_x.dtype)
        passing = states * given.keep[rows] if shape.packed else states
        new.append(_of_each(product("ri,rj->ij", passing, later), shape))
        for gradient, more in zip(gradients, new, strict=True):
            gradient[g] += more

    for gradient in gradients:
        gradient[...] = jnp.zeros_like(gradient)
    _for_each_group(given, shape, unread)
    _carry(added, given, carried, shape, reverse=True)
    _for_each_group(given, shape, undo)


def _of_each(x: Array, shape: Shape) -> Array:
    """Of a product of states by states, the sum of what each direction has with itself."""
    lanes = [slice(s * shape.lanes, (s + 1) * shape.lanes) for s in range(len(shape.directions))]
    return functools.reduce(jnp.add, [x[own, own] for own in lanes])


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32)
