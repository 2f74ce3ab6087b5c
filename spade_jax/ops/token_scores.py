"""What the cross entropy of tokens needs of their logits, with few logits in memory at a time.

Logits are the largest array of a training step: float32 [b, t, v]. Here they are made for some
tokens at a time, and made again for the gradient, in place of being kept; where all of them are
few, they are made once.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from spade_jax import partition
from spade_jax.ops.products import product

# Logits that a device holds at a time: 256 MiB, where the matmul is large and its sums into the
# matrix's gradient are few.
LOGITS = 2**26


class TokenScores(NamedTuple):
    """Of tokens [b, t].

    Attributes:
      log_z: float32, the logarithm of the sum of exp(logits).
      target: float32, the logit of the target.
      total: float32, the sum of the logits; None where only some of them are computed.
      best: bool, whether the target is the first of the largest logits.
      vocabulary_size: v.
    """

    log_z: Array
    target: Array
    total: Array | None
    best: Array
    vocabulary_size: int


def token_scores(states_btd: Array, matrix_vd: Array, targets_bt: Array) -> TokenScores:
    """The scores of targets whose logits are states matrix^T.

    Multiplies in the dtype of the states, adds up in float32. On a mesh each device has its own
    tokens and part of the vocabulary.

    Args:
      states_btd: [b, t, d].
      matrix_vd: [v, d].
      targets_bt: int [b, t], at least 0 and below v.
    """
    matrix_vd = matrix_vd.astype(states_btd.dtype)
    states = partition.sharded_axes(("batch", "length", None), states_btd.shape)
    matrix = partition.sharded_axes(("vocab", None), matrix_vd.shape)
    on_devices = partition.on_each_device(
        functools.partial(_on_shard, vocabulary=matrix[0]),
        (states, matrix, states[:2]),
        states[:2],
    )
    log_z, target, best = on_devices(states_btd, matrix_vd, targets_bt)
    total = jnp.einsum(
        "btd,d->bt",
        states_btd,
        matrix_vd.sum(axis=0, dtype=jnp.float32),
        precision="highest",
        preferred_element_type=jnp.float32,
    )
    return TokenScores(log_z, target, total, best, matrix_vd.shape[0])


def scores_of_logits(logits_btv: Array, targets_bt: Array) -> TokenScores:
    """The scores of targets whose logits [b, t, v] are in memory."""
    logits_btv = logits_btv.astype(jnp.float32)
    log_z, target, best = _scores(logits_btv, targets_bt, None)
    return TokenScores(log_z, target, logits_btv.sum(axis=-1), best, logits_btv.shape[-1])


def _on_shard(
    states_btd: Array, matrix_vd: Array, targets_bt: Array, *, vocabulary: str | None
) -> tuple[Array, Array, Array]:
    """`token_scores` of a device's tokens; `vocabulary` is the axis that cuts the matrix."""
    rows, length, width = states_btd.shape
    tokens = rows * length
    parts = math.ceil(tokens * matrix_vd.shape[0] / LOGITS)
    each = -(-tokens // parts)
    beyond = parts * each - tokens
    states = jnp.pad(states_btd.reshape(tokens, width), ((0, beyond), (0, 0)))
    targets = jnp.pad(targets_bt.reshape(tokens), (0, beyond))
    scores = _in_parts(
        vocabulary, states.reshape(parts, each, width), matrix_vd, targets.reshape(parts, each)
    )
    log_z, target, best = (score.reshape(-1)[:tokens].reshape(rows, length) for score in scores)
    return log_z, target, best


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_parts(
    vocabulary: str | None, states_pnd: Array, matrix_vd: Array, targets_pn: Array
) -> tuple[Array, Array, Array]:
    """The scores [p, n] of p parts of n tokens, a part at a time."""
    return _forward(vocabulary, states_pnd, matrix_vd, targets_pn)[0]


def _logits(states_nd: Array, matrix_vd: Array) -> Array:
    return product("nd,vd->nv", states_nd, matrix_vd)


def _forward(vocabulary, states_pnd, matrix_vd, targets_pn):
    if len(states_pnd) == 1:
        logits_nv = _logits(states_pnd[0], matrix_vd)
        scores = tuple(score[None] for score in _scores(logits_nv, targets_pn[0], vocabulary))
    else:
        logits_nv = None
        scores = lax.map(
            lambda part: _scores(_logits(part[0], matrix_vd), part[1], vocabulary),
            (states_pnd, targets_pn),
        )
    return scores, (states_pnd, matrix_vd, targets_pn, scores[0], logits_nv)


def _backward(vocabulary: str | None, kept: Any, cotangents: Any) -> tuple[Array, Array, None]:
    """dlogits = log_z' softmax(logits) + target' onehot(target), in the dtype of the states."""
    states_pnd, matrix_vd, targets_pn, log_z_pn, logits_nv = kept
    dtype = states_pnd.dtype

    def part(total_vd: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        states, targets, log_z, log_z_bar, target_bar = inputs
        logits = _logits(states, matrix_vd) if logits_nv is None else logits_nv
        places = _places(targets, logits, vocabulary)
        gradient = log_z_bar[:, None] * jnp.exp(logits - log_z[:, None])
        gradient = gradient + jnp.where(places == 0, target_bar[:, None], 0.0)
        gradient = gradient.astype(dtype)
        total_vd = total_vd + product("nv,nd->vd", gradient, states)
        return total_vd, product("nv,vd->nd", gradient, matrix_vd).astype(dtype)

    # Within a map over devices each holds its share of the cotangent of what all hold alike.
    log_z_bar, target_bar = lax.psum(cotangents[:2], _mesh_axes(vocabulary))
    inputs = (states_pnd, targets_pn, log_z_pn, log_z_bar, target_bar)
    zeros = jnp.zeros(matrix_vd.shape, jnp.float32)
    if logits_nv is None:
        total_vd, states_bar = lax.scan(part, zeros, inputs)
    else:
        total_vd, states_bar = part(zeros, tuple(array[0] for array in inputs))
        states_bar = states_bar[None]
    return states_bar, total_vd.astype(dtype), None


_in_parts.defvjp(_forward, _backward)


def _scores(logits: Array, targets: Array, vocabulary: str | None) -> tuple[Array, Array, Array]:
    """Of logits [..., v] for targets [...], v being a part of the vocabulary where it is cut."""
    axes = _mesh_axes(vocabulary)
    largest = lax.pmax(lax.stop_gradient(logits).max(axis=-1), axes)
    places = _places(targets, logits, vocabulary)
    total = jnp.exp(logits - largest[..., None]).sum(axis=-1)
    target = jnp.where(places == 0, logits, 0.0).sum(axis=-1)
    # An argmax would have the compiler carry an index along with each number.
    earlier = ((places < 0) & (logits >= largest[..., None])).any(axis=-1).astype(jnp.int32)
    total, target, earlier = lax.psum((total, target, earlier), axes)
    return largest + jnp.log(total), target, (target >= largest) & (earlier == 0)


def _mesh_axes(vocabulary: str | None) -> tuple[str, ...]:
    return () if vocabulary is None else partition.RULES[vocabulary]


def _places(targets: Array, logits: Array, vocabulary: str | None) -> Array:
    """How far behind its target each logit lies in the vocabulary, int32 as logits [..., v]."""
    ids = partition.global_indices(vocabulary, logits.shape[-1])
    return ids.reshape((1,) * targets.ndim + (-1,)) - targets[..., None]
