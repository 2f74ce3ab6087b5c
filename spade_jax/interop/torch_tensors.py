"""Tensors of PyTorch, which is there where somebody has some, as NumPy's arrays."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


class TorchTensors(Mapping[str, np.ndarray]):
    """Tensors of PyTorch as arrays, each made when it is asked for.

    Attributes:
      shapes: of all of them.
    """

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors = dict(tensors)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: tuple(tensor.shape) for name, tensor in self._tensors.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        import torch

        tensor = self._tensors[name].detach().contiguous()
        if tensor.dtype == torch.bfloat16:  # NumPy has none of its own.
            return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
        return tensor.numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
