"""The adaptive softmax (arXiv 1609.04309): cross entropy over bands of a vocabulary.

A first softmax, the head's, is over the tokens of the first band and one class for each band behind
it, a tail; a second one is over the tokens of the target's tail:

    log p(token) = log head(token)                     in the first band
    log p(token) = log head(tail) + log tail(token)    in a tail

A tail's logits are computed for those tokens alone whose targets are in it. How many these are is
known when a batch is, and not when the program is compiled: they are put in front of the others,
and a loop over blocks of tokens ends behind the last of them. None is dropped, whatever the batch.
Nothing is larger than a block's logits, which are made again for the gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from spade_jax import partition
from spade_jax.ops.products import product
from spade_jax.ops.token_scores import LOGITS, TokenScores, scores_of_logits, token_scores

# Tokens in a block: enough for a matmul to be worth its sums into the matrix's gradient, and few
# enough that the last block, which others fill up, costs little.
_TOKENS = 256


class Tail(NamedTuple):
    """A band behind the first.

    Attributes:
      states_btw: [b, t, w], what is to be predicted from, brought to the band's width.
      matrix_vw: [v, w], the embeddings of its tokens.
    """

    states_btw: Array
    matrix_vw: Array


def adaptive_scores(
    states_btd: Array, head_cd: Array, tails: Sequence[Tail], targets_bt: Array
) -> TokenScores:
    """The scores of targets: `log_z` - `target` is -log p(target).

    Each of the two is the sum of both softmaxes'. `best` is whether the target is what a greedy
    choice finds, of the head first and then of a tail; there is no `total`. On a mesh each device
    has its own tokens, and all of the tails.

    Args:
      states_btd: [b, t, d].
      head_cd: [c, d], the tokens of the first band, and then one row for each tail.
      targets_bt: int [b, t], at least 0 and below the size of the vocabulary.
    """
    start = words = head_cd.shape[0] - len(tails)
    classes_bt, found = targets_bt, []
    for number, (tail_states_btw, matrix_vw) in enumerate(tails):
        places_bt = targets_bt - start
        inside_bt = (places_bt >= 0) & (places_bt < len(matrix_vw))
        classes_bt = jnp.where(inside_bt, words + number, classes_bt)
        found.append(_tail_scores(tail_states_btw, matrix_vw, places_bt, inside_bt))
        start += len(matrix_vw)
    head = token_scores(states_btd, head_cd, classes_bt)
    log_z, target, best = head.log_z, head.target, head.best
    for tail_log_z, tail_target, tail_best in found:
        log_z, target, best = log_z + tail_log_z, target + tail_target, best & tail_best
    return TokenScores(log_z, target, None, best, start)


def adaptive_log_probabilities(states_btd: Array, head_cd: Array, tails: Sequence[Tail]) -> Array:
    """log p of all tokens, float32 [b, t, v]; arguments are as of `adaptive_scores`."""

    def softmax(states: Array, matrix: Array) -> Array:
        logits = product("btd,vd->btv", states, matrix.astype(states.dtype))
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    words = head_cd.shape[0] - len(tails)
    head_btc = softmax(states_btd, head_cd)
    parts = [head_btc[..., :words]]
    for number, tail in enumerate(tails):
        parts.append(head_btc[..., words + number, None] + softmax(*tail))
    return jnp.concatenate(parts, axis=-1)


def _tail_scores(
    states_btw: Array, matrix_vw: Array, places_bt: Array, inside_bt: Array
) -> tuple[Array, Array, Array]:
    """log_z, target and best [b, t], as of `TokenScores`; 0, 0 and True of tokens not inside."""
    axes = partition.sharded_axes(("batch", "length", None), states_btw.shape)
    on_devices = partition.on_each_device(
        _on_shard, (axes, (None, None), axes[:2], axes[:2]), axes[:2]
    )
    return on_devices(states_btw, matrix_vw.astype(states_btw.dtype), places_bt, inside_bt)


def _on_shard(
    states_btw: Array, matrix_vw: Array, places_bt: Array, inside_bt: Array
) -> tuple[Array, Array, Array]:
    """`_tail_scores` of a device's tokens."""
    tokens, width = places_bt.size, states_btw.shape[-1]
    each = max(1, min(_TOKENS, LOGITS // len(matrix_vw), tokens))
    beyond = -tokens % each
    inside = jnp.pad(inside_bt.reshape(tokens), (0, beyond))
    order = jnp.argsort(~inside, stable=True)
    states = jnp.pad(states_btw.reshape(tokens, width), ((0, beyond), (0, 0)))
    places = jnp.where(inside, jnp.pad(places_bt.reshape(tokens), (0, beyond)), 0)
    in_front = states.at[order].get(unique_indices=True, mode="promise_in_bounds")
    scores = _in_blocks(
        in_front.reshape(-1, each, width),
        matrix_vw,
        places[order].reshape(-1, each),
        inside.sum(dtype=jnp.int32),
    )

    def put_back(score: Array, otherwise: Any) -> Array:
        score = score.reshape(-1)
        score = jnp.zeros_like(score).at[order].set(score, unique_indices=True)
        return jnp.where(inside, score, otherwise)[:tokens].reshape(places_bt.shape)

    log_z, target, best = scores
    return put_back(log_z, 0.0), put_back(target, 0.0), put_back(best, True)


@jax.custom_vjp
def _in_blocks(
    states_pnw: Array, matrix_vw: Array, places_pn: Array, count: Array
) -> tuple[Array, Array, Array]:
    """The scores [p, n] of the first `count` tokens of p blocks; zeros in blocks behind them."""
    return _forward(states_pnw, matrix_vw, places_pn, count)[0]


def _forward(states_pnw: Array, matrix_vw: Array, places_pn: Array, count: Array) -> Any:
    def block(index: Array, scores: tuple[Array, ...]) -> tuple[Array, ...]:
        logits = product("nw,vw->nv", states_pnw[index], matrix_vw)
        log_z, target, _, best, _ = scores_of_logits(logits, places_pn[index])
        found = (log_z, target, best)
        return tuple(all_.at[index].set(one) for all_, one in zip(scores, found))

    zeros = jnp.zeros(places_pn.shape, jnp.float32)
    start = (zeros, zeros, zeros.astype(bool))
    scores = lax.fori_loop(0, _blocks(places_pn, count), block, start)
    return scores, (states_pnw, matrix_vw, places_pn, count, scores[0])


def _backward(kept: Any, cotangents: Any) -> tuple[Array, Array, None, None]:
    """dlogits = log_z' softmax(logits) + target' onehot(place), in the dtype of the states."""
    states_pnw, matrix_vw, places_pn, count, log_z_pn = kept
    log_z_bar, target_bar, _ = cotangents
    dtype = states_pnw.dtype

    def block(index: Array, gradients: tuple[Array, Array]) -> tuple[Array, Array]:
        states_bar, total_vw = gradients
        states = states_pnw[index]
        logits = product("nw,vw->nv", states, matrix_vw)
        gradient = log_z_bar[index][:, None] * jnp.exp(logits - log_z_pn[index][:, None])
        hit = places_pn[index][:, None] == jnp.arange(len(matrix_vw))[None]
        gradient = gradient + jnp.where(hit, target_bar[index][:, None], 0.0)
        gradient = gradient.astype(dtype)
        total_vw = total_vw + product("nv,nw->vw", gradient, states)
        one = product("nv,vw->nw", gradient, matrix_vw).astype(dtype)
        return states_bar.at[index].set(one), total_vw

    start = (jnp.zeros_like(states_pnw), jnp.zeros(matrix_vw.shape, jnp.float32))
    states_bar, total_vw = lax.fori_loop(0, _blocks(places_pn, count), block, start)
    return states_bar, total_vw.astype(dtype), None, None


_in_blocks.defvjp(_forward, _backward)


def _blocks(places_pn: Array, count: Array) -> Array:
    """How many blocks the first `count` tokens are in."""
    return -(-count // places_pn.shape[1])
