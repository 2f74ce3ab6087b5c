import pytest

from spade_jax.ops.attention.pallas_gpu import plan
from spade_jax.ops.attention.pallas_gpu.plan import Tile, Tiles


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Kernels meet several tiles of short sequences, of queries and keys that differ in size."""
    tiles = Tiles(
        Tile(32, 16, 4, 2), Tile(16, 32, 4, 2), Tile(16, 32, 4, 2), Tile(16, 16, 4, 2), 12
    )
    for name in ("window_tiles", "full_tiles"):
        monkeypatch.setattr(plan, name, lambda *arguments, **settings: tiles)
