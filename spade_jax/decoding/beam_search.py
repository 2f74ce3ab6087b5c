"""Beam search with T5's length penalty."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spade_jax.config import require
from spade_jax.decoding.sampling import Step
from spade_jax.mixers.base import map_rows

# Of the last axis the k largest, in descending order, and where they are.
TopK = Callable[[jax.Array, int], Any]
# The score of what is not there: finite, so that differences of two of them are no NaN.
_NOTHING = -1e30


class _State(NamedTuple):
    """k hypotheses of each kind for each of b inputs, best first."""

    position: jax.Array  # int32: how many tokens those have that are not ended
    tokens: jax.Array  # int32 [b, k, length], not ended
    log_probability: jax.Array  # float32 [b, k]
    ended_tokens: jax.Array
    ended_score: jax.Array  # log-probability / length penalty
    cache: Any  # of the rows [b * k]


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """((5 + length) / 6) ** alpha (Wu et al., arXiv 1609.08144), the end counted as a token."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def beam_search(
    step: Step,
    cache: Any,
    *,
    batch: int,
    beams: int,
    length: int,
    end_id: int,
    vocab_size: int,
    alpha: float = 0.6,
    start_id: int = 0,
    top_k: TopK = jax.lax.top_k,
) -> tuple[jax.Array, jax.Array]:
    """The best ended sequences that a beam of k hypotheses finds, by log-probability / penalty.

    It stops when in no row a hypothesis that goes on can still beat the k that have ended. A row
    in which none ends within `length` tokens returns those that have not.

    Args:
      step: one step of the model for n = batch * beams rows, the beams of an input after each
        other; its first token is `start_id`.
      cache: the model's before the first step, a tree of `mixers.base.Cache`.
      length: the most tokens of a hypothesis, with the end.
      alpha: the exponent of the length penalty; 0 for none.
      top_k: what finds the k largest, for where JAX's cannot be.

    Returns:
      tokens int32 [batch, beams, length], 0 after the end, and scores float32 [batch, beams]; best
      first, and of score -1e30 where there are fewer.

    Raises:
      ConfigError: fewer than 1 beam or more than the vocabulary has tokens, a length below 1, a
        negative alpha.
    """
    _check(beams, vocab_size, length, alpha)

    def can_improve(state: _State) -> jax.Array:
        # Probabilities only fall; the greatest penalty divides the least loss.
        best = _scores(state.log_probability[:, 0], length, alpha)
        return (state.position < length) & jnp.any(best > state.ended_score[:, -1])

    def extend(state: _State) -> _State:
        last = jnp.where(
            state.position == 0,
            start_id,
            jax.lax.dynamic_index_in_dim(state.tokens, state.position - 1, axis=2, keepdims=False),
        )
        logits, cache = step(last.reshape(-1), state.cache)
        log_probability = state.log_probability[..., None] + jax.nn.log_softmax(
            logits.astype(jnp.float32)
        ).reshape(batch, beams, vocab_size)
        # Of 2k candidates at most k end here, since each hypothesis has one end: k go on.
        best, flat = top_k(log_probability.reshape(batch, -1), min(2 * beams, beams * vocab_size))
        parent, token = flat // vocab_size, (flat % vocab_size).astype(jnp.int32)
        tokens = jnp.take_along_axis(state.tokens, parent[..., None], axis=1)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, state.position, axis=2)
        ends = token == end_id

        score = jnp.where(ends, _scores(best, state.position + 1, alpha), _NOTHING)
        ended_score, pick = top_k(jnp.concatenate([state.ended_score, score], axis=1), beams)
        ended_tokens = jnp.concatenate([state.ended_tokens, tokens], axis=1)
        ended_tokens = jnp.take_along_axis(ended_tokens, pick[..., None], axis=1)

        log_probability, pick = top_k(jnp.where(ends, _NOTHING, best), beams)
        tokens = jnp.take_along_axis(tokens, pick[..., None], axis=1)
        parent = jnp.take_along_axis(parent, pick, axis=1)
        rows = (parent + beams * jnp.arange(batch)[:, None]).reshape(-1)
        cache = map_rows(lambda array: jnp.take(array, rows, axis=0), cache)
        return _State(state.position + 1, tokens, log_probability, ended_tokens, ended_score, cache)

    state = jax.lax.while_loop(can_improve, extend, _begin(cache, batch, beams, length))
    any_ended = state.ended_score[:, :1] > _NOTHING
    return (
        jnp.where(any_ended[..., None], state.ended_tokens, state.tokens),
        jnp.where(any_ended, state.ended_score, _scores(state.log_probability, length, alpha)),
    )


def _check(beams: int, vocab_size: int, length: int, alpha: float) -> None:
    require(beams >= 1, "decoding.beams", beams, "must be at least 1")
    require(
        beams <= vocab_size,
        "decoding.beams",
        beams,
        f"must be at most {vocab_size}, the size of the vocabulary",
    )
    require(length >= 1, "decoding.length", length, "must be at least 1")
    require(alpha >= 0.0, "decoding.length_penalty", alpha, "must be at least 0")


def _begin(cache: Any, batch: int, beams: int, length: int) -> _State:
    """At first all hypotheses of a row are one and the same: only one of them counts."""
    first = jnp.where(jnp.arange(beams) == 0, 0.0, _NOTHING)
    no_tokens = jnp.zeros((batch, beams, length), jnp.int32)
    return _State(
        position=jnp.int32(0),
        tokens=no_tokens,
        log_probability=jnp.broadcast_to(first, (batch, beams)),
        ended_tokens=no_tokens,
        ended_score=jnp.full((batch, beams), _NOTHING),
        cache=cache,
    )


def _scores(log_probability: jax.Array, length: jax.Array | int, alpha: float) -> jax.Array:
    """Log-probability over penalty, where there is a hypothesis."""
    there = log_probability > _NOTHING / 2
    return jnp.where(there, log_probability / length_penalty(length, alpha), _NOTHING)
