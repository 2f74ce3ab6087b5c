"""The weights of a checkpoint: safetensors or PyTorch files, and what of them is taken."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spade_jax.config import RunError
from spade_jax.interop.hf import names
from spade_jax.interop.hf.config import T5
from spade_jax.interop.tensor_files import INDEX, SINGLE, read_tensors
from spade_jax.interop.torch_tensors import TorchTensors

_TORCH, _TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


class Weights(Protocol):
    """Arrays by their names, with the shapes of all."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    def __getitem__(self, name: str, /) -> np.ndarray: ...


def read_weights(folder: Path) -> Weights:
    """The weights in a checkpoint's folder; safetensors where both kinds are there.

    Raises:
      RunError: there are none, or they are damaged; or PyTorch's, where torch is missing.
    """
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return read_tensors(folder)
    if (folder / _TORCH_INDEX).exists():
        try:
            places = json.loads((folder / _TORCH_INDEX).read_text())["weight_map"].values()
            files = sorted({folder / Path(name).name for name in places})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path = folder / _TORCH_INDEX
            raise RunError(f"{path}: is no index of files ({error!r})") from None
    elif (folder / _TORCH).exists():
        files = [folder / _TORCH]
    else:
        raise RunError(
            f"{folder}: holds no weights; must hold {SINGLE}, {INDEX}, {_TORCH} or {_TORCH_INDEX}"
        )
    return TorchTensors({k: v for file in files for k, v in _read_torch(file).items()})


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError:
        raise RunError(
            f"{path}: is a file of PyTorch, which is not installed; install torch, or save the "
            "checkpoint as safetensors"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Of a damaged file it raises kinds of several libraries.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: cannot be read as weights of PyTorch ({reason})") from None
    if not isinstance(tensors, Mapping) or not all(hasattr(t, "shape") for t in tensors.values()):
        raise RunError(f"{path}: holds something else than named tensors")
    return tensors


def is_tied(weights: Weights, t5: T5) -> bool:
    """Whether logits come from the embedding: there is no other matrix, or, where the
    configuration ties them, an equal one."""
    if names.OUTPUT not in weights.shapes:
        return True
    if not t5.scales_logits:
        return False
    return np.array_equal(weights[names.OUTPUT], weights[embedding_name(weights)])


def embedding_name(weights: Weights) -> str:
    """Under which name the embedding lies there.

    Raises:
      RunError: there is none, or two that differ.
    """
    there = [name for name in names.EMBEDDINGS if name in weights.shapes]
    if not there:
        raise RunError(f"the weights hold no {names.EMBEDDINGS[0]}; must be those of a T5")
    for other in there[1:]:
        if not np.array_equal(weights[other], weights[there[0]]):
            raise RunError(
                f"{other} is another matrix than {there[0]}; must be equal, for encoder and "
                "decoder share their embedding here"
            )
    return there[0]


def take(
    weights: Weights, t5: T5, shapes: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Our parameters out of a checkpoint's weights, as float32, and the names of those it lacks.

    Args:
      shapes: of the model's parameters, by layer.

    Raises:
      RunError: an array is missing, has another shape, or is left over.
    """
    taken: dict[str, np.ndarray] = {}
    new: list[str] = []
    read = set()
    for name, leaf in shapes.items():
        place = names.place_of(name, long=t5.long, gated=t5.feed_forward == "gated-gelu")
        if place is None:
            new.append(name)
            continue
        source = embedding_name(weights) if name == "embedding" else place.name
        found = weights.shapes.get(source)
        expected = leaf.shape[::-1] if place.transposed else leaf.shape
        if found is None:
            raise RunError(f"the weights lack {source} {list(expected)}, which config.json implies")
        if found != expected:
            raise RunError(
                f"{source} is {list(found)} among the weights; must be {list(expected)}, as "
                "config.json implies"
            )
        read.add(source)
        array = weights[source].astype(np.float32)
        taken[name] = np.ascontiguousarray(array.T if place.transposed else array)
    # An equal matrix under another name adds nothing.
    read |= {names.OUTPUT} if "output" not in shapes else set()
    left = sorted(n for n in weights.shapes if n not in read and not names.UNUSED.fullmatch(n))
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise RunError(
            f"the weights hold {', '.join(left[:3])}{more}, which a {t5.model_type} of this "
            "config.json does not have"
        )
    return taken, new
