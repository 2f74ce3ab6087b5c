"""Runs exported programs with JAX and NumPy alone. Copied beside them: `import loader`.

    model = loader.Exported(folder)
    outputs = model.greedy([[104, 101, 108, 1], [100, 1]])

Tokens are the vocabulary's ids; each input ends with `model.manifest["end_id"]`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

_DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16), "I32": np.dtype(np.int32)}


class Exported:
    """A model's functions.

    Attributes:
      manifest: lengths, the end's id, the size of the vocabulary, and what made the programs.
      params: parameters by layer.
    """

    def __init__(self, folder: Any = None):
        """folder: where the programs are; None is that of this file.

        Raises:
          ValueError: a file is missing, or not what it was.
        """
        self._folder = Path(__file__).parent if folder is None else Path(folder)
        self.manifest = json.loads(self._read("manifest.json").decode())
        self.params = {name: jnp.asarray(x) for name, x in self._tensors().items()}
        self._programs: dict[tuple[str, int], Any] = {}

    def encode(self, inputs: Any) -> jax.Array:
        """Lists of tokens -> float32 [b, l, d], l the next length that there is."""
        return self._call("encode", inputs)

    def start(self, inputs: Any) -> tuple[int, dict[str, jax.Array]]:
        """Lists of tokens -> what `step` begins with: the length of inputs, and the cache. The
        first token of an output is 0."""
        return self._padded(inputs).shape[1], self._call("start", inputs)

    def step(self, length: int, cache: Any, tokens: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The last token of each row -> logits float32 [b, vocabulary] of the next; the cache."""
        return self._program("step", length)(self.params, cache, jnp.asarray(tokens, jnp.int32))

    def greedy(self, inputs: Any) -> jax.Array:
        """Lists of tokens -> int32 [b, max_length], 0 after the end of each."""
        return self._call("greedy", inputs)

    def beam(self, inputs: Any) -> jax.Array:
        """The same, by beam search."""
        return self._call("beam", inputs)

    def _call(self, name: str, inputs: Any) -> Any:
        tokens = self._padded(inputs)
        return self._program(name, tokens.shape[1])(self.params, jnp.asarray(tokens))

    def _padded(self, inputs: Any) -> np.ndarray:
        longest = max(map(len, inputs))
        lengths = [n for n in sorted(self.manifest["lengths"]) if n >= longest]
        if not lengths:
            raise ValueError(
                f"inputs of {longest} tokens: must be at most {max(self.manifest['lengths'])}"
            )
        tokens = np.zeros((len(inputs), lengths[0]), np.int32)
        for row, own in zip(tokens, inputs):
            row[: len(own)] = own
        return tokens

    def _program(self, name: str, length: int) -> Any:
        if (name, length) not in self._programs:
            exported = jax.export.deserialize(bytearray(self._read(f"{name}_{length}.stablehlo")))
            self._programs[name, length] = jax.jit(exported.call)
        return self._programs[name, length]

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        if not path.is_file():
            raise ValueError(f"{path}: is not there")
        data = path.read_bytes()
        if name != "manifest.json":
            expected = self.manifest["sha256"].get(name)
            if expected is not None and hashlib.sha256(data).hexdigest() != expected:
                raise ValueError(f"{path}: its bytes have changed; put back a whole copy")
        return data

    def _tensors(self) -> dict[str, np.ndarray]:
        index = self._folder / "model.safetensors.index.json"
        files = ["model.safetensors"]
        if index.exists():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        tensors = {}
        for file in files:
            data = self._read(file)
            end = 8 + int.from_bytes(data[:8], "little")
            for name, about in json.loads(data[8:end]).items():
                if name != "__metadata__":
                    first, last = about["data_offsets"]
                    array = np.frombuffer(data[end + first : end + last], _DTYPES[about["dtype"]])
                    tensors[name] = array.reshape(about["shape"])
        return tensors
