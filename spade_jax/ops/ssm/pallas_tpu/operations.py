"""How a state space comes to the TPU kernels, and what they refuse."""

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array

from spade_jax.ops import dispatch, tpu
from spade_jax.ops.ssm import chunked
from spade_jax.ops.ssm.kernel import BlockOperators
from spade_jax.ops.ssm.sequence import SequenceShards

_LANES, _SUBLANES = 128, 8
# Rows come in whole tiles of bfloat16; so many features run side by side, at most.
TILE, _FEATURES = 16, 8


def run(
    operators: BlockOperators,
    u: Array,
    runs: Array | None,
    shards: SequenceShards,
    dtype: Any,
) -> Array:
    """`chunked.run`."""
    from spade_jax.ops.ssm.pallas_tpu import kernels

    assert operators.write is not None
    assert operators.read is not None
    batch, length, d = u.shape
    t = operators.matrices.shape[1]
    # What fills the last tile up is seen by nothing that counts.
    blocks = _blocks(length, t)
    x, runs = chunked.in_blocks(u, runs, t, blocks)
    masks = kept = None
    count, n = operators.write.shape[1], operators.write.shape[3]
    if runs is not None:
        borders = chunked.borders_of(runs, None, shards)
        masks = _masks(borders, t).reshape(-1, t)
        kept = jnp.repeat(jnp.moveaxis(borders.keep, 0, -1), n, axis=-1)
        kept = _filled(kept.astype(jnp.float32).reshape(-1, count * n))
    features = _features(operators, u, runs)
    assert features is not None
    skip = jnp.zeros((d,)) if operators.skip is None else operators.skip
    given = kernels.Given(
        x.reshape(d, -1, t),
        operators.matrices,
        _lanes(operators.write),
        _lanes(operators.read),
        jnp.broadcast_to(skip.astype(jnp.float32)[:, None, None], (d, 1, t)),
        operators.transitions[0].minus_identity(),
        masks,
        kept,
    )
    shape = kernels.Shape(
        blocks,
        features,
        shards.directions,
        n,
        runs is not None,
        jnp.dtype(dtype),
        dispatch.interprets(),
    )
    y = kernels.run(shape, given)[0].reshape(d, batch, blocks, t)
    return chunked.tokens_first(y, t, length)


def refuses(
    operators: BlockOperators, u: Array, runs: Any, shards: SequenceShards, dtype: Any
) -> str | None:
    """Why such a state space cannot be run with here."""
    if (elsewhere := tpu.refuses()) is not None:
        return elsewhere
    if not operators.transitions:
        return "takes sequences of several blocks, and this is one"
    if shards.number > 1:
        return f"takes whole sequences, and these are in {shards.number} pieces"
    t, outputs = operators.matrices.shape[1:]
    if outputs != t:
        return f"takes one channel, and these are {outputs // t}"
    if jnp.dtype(operators.matrices.dtype) != jnp.float32:
        return f"takes float32, and this is {operators.matrices.dtype}"
    assert operators.write is not None
    directions, _, n = operators.write.shape[1:]
    if directions * n > _LANES:
        return f"takes up to {_LANES} states in all directions, and these are {directions} x {n}"
    if t % _LANES and not dispatch.interprets():
        return f"takes chunk lengths of whole multiples of {_LANES}, and this is {t}"
    if n % _SUBLANES and not dispatch.interprets():
        return f"takes states of whole multiples of {_SUBLANES}, and this is {n}"
    if _features(operators, u, runs) is None:
        return (
            f"keeps all tokens of a feature in {tpu.VMEM_BYTES >> 20} MiB of vector memory, and "
            f"these are {u.shape[0]} x {u.shape[1]}"
        )
    return None


def is_best(
    operators: BlockOperators, u: Array, runs: Any, shards: SequenceShards, dtype: Any
) -> bool:
    """Not where what fills up tiles would be most of the work."""
    t = operators.matrices.shape[1]
    return 2 * _blocks(u.shape[1], t) * t <= 3 * u.shape[1]


def _blocks(length: int, t: int) -> int:
    """Of a sequence that is filled up."""
    return -(-length // (TILE * t)) * TILE


def _features(operators: BlockOperators, u: Array, runs: Array | None) -> int | None:
    """How many run side by side, as far as the backward kernel's arrays fit into vector memory;
    None where not one does."""
    t = operators.matrices.shape[1]
    rows = u.shape[0] * _blocks(u.shape[1], t)
    # What comes and goes is there twice: x, dy and dx; states, of which there are three more; the
    # operators and their gradients; masks.
    tokens = rows * (2 * 3 * t * u.dtype.itemsize + (2 + 3) * _LANES * 4)
    of_operators = 2 * 2 * (t * (t + 2 * _LANES) + _LANES * _LANES) * 4
    masks = 0 if runs is None else 2 * rows * (t + _LANES) * 4
    fit = (tpu.VMEM_BYTES - masks) // (tokens + of_operators)
    possible = [k for k in range(1, min(fit, _FEATURES) + 1) if u.shape[2] % k == 0]
    return max(possible, default=None)


def _filled(x: Array) -> Array:
    """With zeros up to whole lanes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _LANES)])


def _lanes(x: Array) -> Array:
    """[d, s, t, n] to [d, t, all directions' n]."""
    d, s, t, n = x.shape
    return _filled(jnp.moveaxis(x, 1, 2).reshape(d, t, s * n))


def _masks(borders: chunked.Borders, t: int) -> Array:
    """[b, m, t], bits: for each direction whether a token leaves with the block, and enters with
    it; then of each cut of `chunked.before_cuts` whether it is of its run."""
    of_rounds = [borders.runs == borders.runs[..., last] for last in chunked.before_cuts(t)]
    found = [*borders.leaves, *borders.enters, *of_rounds]
    bits = [bit.astype(jnp.int32) << k for k, bit in enumerate(found)]
    return functools.reduce(jnp.bitwise_or, bits)
