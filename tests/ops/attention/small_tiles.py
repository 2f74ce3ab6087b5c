"""Kernels of small tiles, so that short sequences have several, of queries and keys that differ."""

from spade_jax.ops.attention.pallas_gpu import plan
from spade_jax.ops.attention.pallas_gpu.plan import Tile, Tiles

_GPU = Tiles(Tile(32, 16, 4, 2), Tile(16, 32, 4, 2), Tile(16, 32, 4, 2), Tile(16, 16, 4, 2), 12)


def use_small_tiles(setattr):
    """Sets them by `setattr`, the built-in one or a test's."""
    for name in ("window_tiles", "full_tiles"):
        setattr(plan, name, lambda *arguments, **settings: _GPU)
