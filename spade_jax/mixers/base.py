"""What a mixer is called with, and what it gives.

A mixer brings the tokens of a sequence together, and is all that does within a stack. It never lets
one segment see another, and padding contributes nothing. Without a cache it sees a whole sequence;
with one, the next tokens, a piece of a prompt or the last one written: one call for all of them.
"""

from typing import Any, NamedTuple, Protocol

import jax


class Context(NamedTuple):
    """What all mixers of a stack share in one call.

    Attributes:
      segment_ids: int [b, l]; 0 is padding, else the example in a packed row. None: no padding, and
        one example a row.
      positions: int [b or 1, l], within the segments.
      start: int32 scalar, how many tokens went before those of this call; 0 without a cache.
      biases: the stack's relative biases, by how far they reach to either side: float32
        [h, 2 * reach + 1] for each reach that `MixerConfig.relative_reach` asks for.
    """

    segment_ids: jax.Array | None
    positions: jax.Array
    start: jax.Array
    biases: dict[int, jax.Array]


class Cache(NamedTuple):
    """What is kept of the tokens before.

    Attributes:
      rows: a tree of arrays [b, ...], one row for each sequence: what beam search picks from.
      shared: a tree of what is the same for all rows and tokens, computed once.
    """

    rows: Any
    shared: Any = None


class Mixer(Protocol):
    """The module that `MixerConfig.build` makes."""

    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """[b, l, d] -> [b, l, d], and the cache with these tokens; None without one.

        One that gates the residual takes it, too (`MixerConfig.gates_residual`).
        """
        ...

    def init_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """The cache of `rows` sequences, of at most so many tokens, before their first token.

        Args:
          dtype: of activations that are kept.
        """
        ...


def map_rows(function: Any, cache: Any) -> Any:
    """A tree of caches with `function` of each array that has rows."""

    def one(cache: Cache) -> Cache:
        return Cache(jax.tree.map(function, cache.rows), cache.shared)

    return jax.tree.map(one, cache, is_leaf=lambda node: isinstance(node, Cache))
