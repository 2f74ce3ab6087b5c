"""How exactly matmuls multiply."""

from jax import numpy as jnp
from jax.typing import DTypeLike


def matmul_precision(dtype: DTypeLike) -> str | None:
    """Full precision for float32, which accelerators would otherwise round before they multiply."""
    return "highest" if jnp.dtype(dtype) == jnp.float32 else None
