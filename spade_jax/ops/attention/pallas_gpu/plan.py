"""What kernels know when they are compiled, and which tiles of queries and keys they visit."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

# Of a key of segment 0: no query is of this segment.
HIDDEN = -(2**31)


class Tile(NamedTuple):
    """How many queries and keys a kernel multiplies at once, with so many warps, and how many tiles
    are on their way."""

    queries: int
    keys: int
    warps: int
    stages: int


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Those of each kernel. `bias` ones are squares, and there are about `bias_programs`."""

    forward: Tile
    dq: Tile
    dkv: Tile
    bias: Tile
    bias_programs: int = 1056


# The fastest of some dozen each, measured on an H200. Tiles that look biases up hold them in shared
# memory too.
_SQUARE = Tile(64, 64, 4, 2)
_DEEP = Tile(64, 64, 4, 3)
_WINDOW = Tiles(Tile(64, 32, 4, 3), Tile(64, 32, 4, 3), Tile(32, 64, 4, 3), _SQUARE)
_BIASED = Tiles(_SQUARE, _SQUARE, _SQUARE, _SQUARE)
_PLAIN = Tiles(_DEEP, _DEEP, _DEEP, _SQUARE)
# Heads of 128 fill registers, and shared memory, of which some GPUs have 99 KiB.
_SMALL_SQUARE = Tile(32, 32, 4, 2)
_WIDE = Tiles(_SQUARE, Tile(64, 32, 4, 2), Tile(32, 64, 4, 2), _SMALL_SQUARE)
# Float32 is multiplied without tensor cores.
_SMALL = Tiles(_SMALL_SQUARE, _SMALL_SQUARE, _SMALL_SQUARE, _SMALL_SQUARE)
_SMALLEST_SQUARE = Tile(16, 16, 4, 2)
_SMALLEST = Tiles(_SMALLEST_SQUARE, _SMALLEST_SQUARE, _SMALLEST_SQUARE, _SMALLEST_SQUARE)


def window_tiles(query: Array) -> Tiles:
    """Of window attention, for queries of this dtype and head size."""
    return _float32_or_wide(query) or _WINDOW


def full_tiles(query: Array, *, looks_up: bool) -> Tiles:
    """Of full attention, for queries of this dtype and head size, with a bias or a mask to look
    up or without."""
    return _float32_or_wide(query) or (_BIASED if looks_up else _PLAIN)


def _float32_or_wide(query: Array) -> Tiles | None:
    wide = query.shape[-1] > 64
    if query.dtype == jnp.float32:
        return _SMALLEST if wide else _SMALL
    return _WIDE if wide else None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which keys queries see, and how.

    The distance of a key and a query is that of their places, plus an offset that is `offset`, or
    where that is None, known when the kernel runs.

    Attributes:
      behind, ahead: the largest distance to either side at which a key is seen; None: any.
      reach: the bias tells distances below it apart; None: there is neither bias nor a limit.
      has_bias: the table of biases is to be learned, and not only masks.
      dropout_rate: which share of the probabilities to drop.
      by_query: segments of queries and keys must be equal; or else keys have some, if at all.
      interpret: run kernels as plain JAX.
    """

    tiles: Tiles
    behind: int | None = None
    ahead: int | None = None
    reach: int | None = None
    has_bias: bool = False
    offset: int | None = 0
    dropout_rate: float = 0.0
    by_query: bool = False
    interpret: bool = False

    @property
    def window(self) -> bool:
        """Whether all keys that are seen lie within the bias's reach."""
        return self.behind is not None


class Bounds(NamedTuple):
    """Tiles first .. end - 1, of which those of near .. near_end - 1 have distances below the
    bias's reach."""

    first: Any
    near: Any
    near_end: Any
    end: Any


class Seen(NamedTuple):
    """What a tile of queries sees of the tiles of keys by segments (or with the two exchanged).

    Attributes:
      first, end: it sees none of those before the first, and from the end on.
      clear, clear_end: within these nothing is hidden, and segments need not be looked at.
    """

    first: Any
    end: Any
    clear: Any
    clear_end: Any


def key_tiles(
    plan: Plan, offset: Any, first: Any, tile: Tile, keys: int, seen: Seen | None
) -> Bounds:
    """The tiles of keys that queries `first` .. see."""
    last = first + tile.queries - 1
    return _bounds(
        tile.keys,
        -(-keys // tile.keys),
        None if plan.behind is None else first - plan.behind - offset,
        None if plan.ahead is None else last + plan.ahead - offset,
        None if plan.reach is None else first - plan.reach + 1 - offset,
        None if plan.reach is None else last + plan.reach - 1 - offset,
        plan.window,
        seen,
    )


def query_tiles(
    plan: Plan, offset: Any, first: Any, tile: Tile, queries: int, seen: Seen | None
) -> Bounds:
    """The tiles of queries that see keys `first` .. ."""
    first, last = first + offset, first + tile.keys - 1 + offset
    return _bounds(
        tile.queries,
        -(-queries // tile.queries),
        None if plan.ahead is None else first - plan.ahead,
        None if plan.behind is None else last + plan.behind,
        None if plan.reach is None else first - plan.reach + 1,
        None if plan.reach is None else last + plan.reach - 1,
        plan.window,
        seen,
    )


def _bounds(
    size: int,
    count: int,
    lowest: Any,
    highest: Any,
    near: Any,
    near_highest: Any,
    window: bool,
    seen: Seen | None,
) -> Bounds:
    """Of `count` tiles of this size: those from the lowest to the highest place."""
    first, end = jnp.int32(0), jnp.int32(count)
    if lowest is not None:
        first = jnp.minimum(_tile_of(lowest, size), end)
    if highest is not None:
        end = jnp.minimum(_tile_of(highest + size, size), end)
    if seen is not None:
        first, end = jnp.maximum(first, seen.first), jnp.minimum(end, seen.end)
    end = jnp.maximum(first, end)
    if near is None or window:
        return Bounds(first, first, end, end)
    near = jnp.clip(_tile_of(near, size), first, end)
    near_end = jnp.clip(_tile_of(near_highest + size, size), near, end)
    return Bounds(first, near, near_end, end)


def _tile_of(place: Any, size: int) -> Array:
    """In which tile a place lies; 0 for those before the first."""
    return lax.div(jnp.maximum(jnp.int32(place), 0), jnp.int32(size))


def tiles_seen(
    own_segments: Array | None, other_segments: Array, own_tile: int, other_tile: int, own: int
) -> Array:
    """Of each tile of queries which tiles of keys may be of one segment (or with the two
    exchanged): none of a padding's, and of packed rows few.

    Args:
      own_segments: int32 [b, own], or None: of any. other_segments: [b, other]. 0 is padding.

    Returns:
      int32 [b, tiles of own, 4], along the last axis the entries of a `Seen`.
    """
    low, high, padded = _ranges_of_tiles(other_segments, other_tile)
    tiles = -(-own // own_tile)
    shape = low.shape[0], tiles, low.shape[1]
    if own_segments is None:
        seen = jnp.broadcast_to((low <= high)[:, None], shape)
        clear = jnp.broadcast_to(~padded[:, None], shape)
    else:
        own_low, own_high, own_padded = (
            each[:, :, None] for each in _ranges_of_tiles(own_segments, own_tile)
        )
        low, high, padded = low[:, None], high[:, None], padded[:, None]
        seen = (own_low <= high) & (low <= own_high)
        clear = ~own_padded & ~padded & (own_low == own_high) & (low == high) & (low == own_low)
    first = jnp.argmax(seen, axis=2)
    end = seen.shape[2] - jnp.argmax(seen[:, :, ::-1], axis=2)
    end = jnp.where(seen.any(axis=2), end, first)
    # The first ones in a row, if segments come back.
    first_clear = jnp.argmax(clear, axis=2)
    after = ~clear & (jnp.arange(clear.shape[2])[None, None] > first_clear[:, :, None])
    clear_end = jnp.where(after.any(axis=2), jnp.argmax(after, axis=2), clear.shape[2])
    clear_end = jnp.where(clear.any(axis=2), clear_end, first_clear)
    return jnp.stack([first, end, first_clear, clear_end], axis=2).astype(jnp.int32)


def _ranges_of_tiles(segments: Array, tile: int) -> tuple[Array, Array, Array]:
    """The lowest and highest segment within each tile, padding aside, and whether there is any:
    [b, tiles] each; the highest is the lower one where there is nothing else."""
    segments = jnp.pad(segments, ((0, 0), (0, -segments.shape[1] % tile)))
    segments = segments.reshape(segments.shape[0], -1, tile)
    limits = jnp.iinfo(jnp.int32)
    low = jnp.min(jnp.where(segments == 0, limits.max, segments), axis=2)
    high = jnp.max(jnp.where(segments == 0, limits.min, segments), axis=2)
    return low, high, (segments == 0).any(axis=2)
