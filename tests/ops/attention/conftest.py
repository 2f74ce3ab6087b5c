import pytest
from small_tiles import use_small_tiles


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    use_small_tiles(monkeypatch.setattr)
