import jax
import pytest


@pytest.fixture
def x64():
    """float64 and complex128 stay what they are."""
    with jax.enable_x64(True):
        yield
