import jax
import pytest


@pytest.fixture(autouse=True)
def no_rank_promotion():
    """Arrays of different ranks never meet by accident."""
    with jax.numpy_rank_promotion("raise"):
        yield
