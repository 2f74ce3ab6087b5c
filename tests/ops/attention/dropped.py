"""What dropout does to the probabilities of a whole, by its definition."""

import jax.numpy as jnp

from spade_jax.ops.attention.dropout import keeps, key_words, number_queries, query_words


def dropped(rate, key, *, rows, heads, queries, keys):
    """What probabilities [rows, heads, queries, keys] are multiplied by: 0 or 1 / (1 - rate)."""
    places = (jnp.arange(count, dtype=jnp.int32) for count in (rows, heads, queries))
    numbers = number_queries(*places, num_heads=heads, length=queries)
    words = key_words(key, jnp.arange(keys, dtype=jnp.int32))[None, None, None]
    return keeps(query_words(key, numbers)[..., None], words, rate) / (1.0 - rate)
