"""One sequence a row, token after token: the likeliest each time (greedy), or drawn at random."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Writing(NamedTuple):
    """Where n rows stand that are being written.

    Attributes:
      written: int32 scalar, how many tokens each has had.
      last: int32 [n], their last ones.
      score: float32 [n], the sum of their log-probabilities under the model (not under what the
        settings make of it).
      ended: bool [n].
      cache: the model's of all tokens before the last ones.
    """

    written: jax.Array
    last: jax.Array
    score: jax.Array
    ended: jax.Array
    cache: Any


def begin(last: jax.Array, cache: Any) -> Writing:
    """Rows before their first token, the cache being the model's of all before `last` [n]."""
    rows = last.shape[0]
    return Writing(
        jnp.int32(0), last, jnp.zeros((rows,), jnp.float32), jnp.zeros((rows,), bool), cache
    )


def write(
    step: Step,
    writing: Writing,
    count: int,
    *,
    end_id: int,
    config: SamplingConfig,
    key: jax.Array | None = None,
    given: jax.Array | None = None,
) -> tuple[jax.Array, Writing]:
    """The next tokens of each row, or fewer where all have ended.

    Args:
      step: one step of the model.
      count: the most tokens.
      key: a random key, the same for all tokens of a row; needed where the temperature is not 0.
      given: int32 [n, count], tokens that are read and not written, above 0: the rest of a prompt,
        which ends nothing and scores nothing.

    Returns:
      tokens int32 [n, count], 0 after the end, and where the rows stand.

    Raises:
      ConfigError: a temperature without a key.
    """
    require(
        config.temperature == 0.0 or key is not None,
        "decoding.temperature",
        config.temperature,
        "must be 0 without a random key",
    )
    first = writing.written

    def unfinished(state: tuple[jax.Array, Writing]) -> jax.Array:
        _, now = state
        return (now.written < first + count) & ~now.ended.all()

    def append(state: tuple[jax.Array, Writing]) -> tuple[jax.Array, Writing]:
        tokens, (index, last, score, ended, cache) = state
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
        silent, ends = ended, chosen == end_id
        if given is not None:
            prompt = jax.lax.dynamic_index_in_dim(given, index - first, axis=1, keepdims=False)
            chosen = jnp.where(prompt > 0, prompt, chosen)
            silent, ends = ended | (prompt > 0), ends & (prompt == 0)
        score = score + jnp.where(silent, 0.0, gained)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, chosen, index - first, axis=1)
        return tokens, Writing(index + 1, chosen, score, ended | ends, cache)

    tokens = jnp.zeros((writing.last.shape[0], count), jnp.int32)
    return jax.lax.while_loop(unfinished, append, (tokens, writing))


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
    """Writes rows of at most `length` tokens, from `start_id` on.

    Args:
      step: one step of the model.
      cache: the model's before the first step.
      rows: n.
      length: the most tokens of a row, with the end.
      key: as of `write`.

    Returns:
      tokens int32 [n, length], 0 after the end, and their scores as of `Writing`.

    Raises:
      ConfigError: a length below 1, or a temperature without a key.
    """
    require(length >= 1, "decoding.length", length, "must be at least 1")
    start = begin(jnp.full((rows,), start_id, jnp.int32), cache)
    tokens, end = write(step, start, length, end_id=end_id, config=config, key=key)
    return tokens, end.score
