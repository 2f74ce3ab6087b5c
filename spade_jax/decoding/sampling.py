"""One sequence a row, token after token: the likeliest each time (greedy), or drawn at random."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spade_jax.config import require
from spade_jax.decoding.config import SamplingConfig

# (tokens int32 [n], cache) -> (logits float32 [n, v], cache): what follows these tokens.
Step = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def sampling_logits(logits: jax.Array, config: SamplingConfig) -> jax.Array:
    """The logits [..., v] of the distribution that a token is drawn from: -inf is never drawn.

    Of tokens of equal logits those of the lower ids are kept.
    """
    logits = logits.astype(jnp.float32) / config.temperature
    v = logits.shape[-1]
    if (config.top_k is None or config.top_k >= v) and config.top_p == 1.0:
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    keep = jnp.broadcast_to(jnp.arange(v) < (config.top_k or v), ranked.shape)
    probabilities = jax.nn.softmax(jnp.where(keep, ranked, -jnp.inf), axis=-1)
    # A token stays where those before it do not hold top_p yet; the first one always does.
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    keep = keep & (before < config.top_p)
    ranked = jnp.where(keep, ranked, -jnp.inf)
    return jnp.put_along_axis(logits, order, ranked, axis=-1, inplace=False)


def sample(
    step: Step,
    cache: Any,
    *,
    rows: int,
    length: int,
    end_id: int,
    config: SamplingConfig,
    key: jax.Array | None = None,
    start_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Continues each row until it ends, or is `length` long; stops when all of them have ended.

    Args:
      step: one step of the model; its first token is `start_id`.
      cache: the model's before the first step.
      rows: n.
      length: the most tokens of a row, with the end.
      key: a random key; needed where the temperature is not 0.

    Returns:
      tokens int32 [n, length], 0 after the end, and the sum of their log-probabilities under the
      model (not under what the settings make of it), float32 [n].

    Raises:
      ConfigError: a length below 1, or a temperature without a key.
    """
    require(length >= 1, "decoding.length", length, "must be at least 1")
    require(
        config.temperature == 0.0 or key is not None,
        "decoding.temperature",
        config.temperature,
        "must be 0 without a random key",
    )

    def unfinished(state: tuple[Any, ...]) -> jax.Array:
        index, _, _, _, ended, _ = state
        return (index < length) & ~ended.all()

    def append(state: tuple[Any, ...]) -> tuple[Any, ...]:
        index, last, tokens, score, ended, cache = state
        logits, cache = step(last, cache)
        if config.temperature == 0.0:
            chosen = jnp.argmax(logits, axis=-1)
        else:
            assert key is not None
            chosen = jax.random.categorical(
                jax.random.fold_in(key, index), sampling_logits(logits, config), axis=-1
            )
        chosen = jnp.where(ended, 0, chosen).astype(jnp.int32)
        gained = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=-1)[:, 0]
        score = score + jnp.where(ended, 0.0, gained)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, chosen, index, axis=1)
        return index + 1, chosen, tokens, score, ended | (chosen == end_id), cache

    state = (
        jnp.int32(0),
        jnp.full((rows,), start_id, jnp.int32),
        jnp.zeros((rows, length), jnp.int32),
        jnp.zeros((rows,), jnp.float32),
        jnp.zeros((rows,), bool),
        cache,
    )
    _, _, tokens, score, _, _ = jax.lax.while_loop(unfinished, append, state)
    return tokens, score
