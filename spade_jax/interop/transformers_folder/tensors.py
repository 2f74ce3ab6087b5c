"""Our parameters by the names and shapes that PyTorch's modules have.

encoder/layers/3/local_mixer/query/kernel [in, out]  is  encoder.layers.3.local_mixer.query.weight
[out, in]; embedding and output are embedding.weight and output.weight; what a state space has gets
the prefix ssm_; all others keep their names, with dots.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spade_jax.config import EncoderDecoderConfig
from spade_jax.interop.names import shapes as shapes_of
from spade_jax.interop.source import is_state_space
from spade_jax.interop.tensor_files import write_tensors


def torch_name(name: str, config: EncoderDecoderConfig) -> str:
    """Of a parameter by layer."""
    if name in ("embedding", "output"):
        return f"{name}.weight"
    *modules, last = name.split("/")
    if last == "kernel":
        last = "weight"
    elif is_state_space(name, config):
        last = f"ssm_{last}"
    return ".".join([*modules, last])


def write(
    folder: Path,
    config: EncoderDecoderConfig,
    weights: Mapping[str, Any],
    *,
    dtype: Any,
    max_shard_bytes: int,
) -> None:
    """Writes model.safetensors; one array at a time is in memory, in the order of `weights`.

    Args:
      weights: by layer.
      dtype: of all but the state spaces', which are float32.
    """
    expected = shapes_of(config)
    assert weights.keys() == expected.keys()
    ours = {torch_name(name, config): name for name in weights}
    shapes = {}
    for name, of in ours.items():
        shape = tuple(expected[of].shape)
        kept = is_state_space(of, config)
        shapes[name] = (
            shape[::-1] if of.endswith("/kernel") else shape,
            np.dtype(np.float32 if kept else dtype),
        )

    def get(name: str) -> np.ndarray:
        array = np.asarray(weights[ours[name]])
        array = array.T if ours[name].endswith("/kernel") else array
        return np.ascontiguousarray(array.astype(shapes[name][1]))

    write_tensors(folder, shapes, get, max_shard_bytes=max_shard_bytes)
