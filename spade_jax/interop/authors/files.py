"""Checkpoints of the authors': a folder of their encoder-decoder, or a fairseq file.

Of a pickle nothing but arrays and plain values is ever made: PyTorch is asked for that, and
what else a file wants is refused by name.
"""

import argparse
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from spade_jax.config import RunError, require, require_choice
from spade_jax.files import atomic_write, check_folder, whole_folder
from spade_jax.interop.authors.pairs import Kind, kind_of
from spade_jax.interop.tensor_files import INDEX, SINGLE, Tensors, read_tensors, write_tensors
from spade_jax.interop.torch_tensors import TorchTensors
from spade_jax.stored import read_json

CONFIG, PICKLED = "config.json", "pytorch_model.bin"
_ADVICE = "put back a whole copy"


def read_checkpoint(path: Path) -> tuple[dict[str, Any], TorchTensors | Tensors, Kind]:
    """Settings, weights and kind of a checkpoint.

    Args:
      path: a folder with config.json and pytorch_model.bin or model.safetensors, or a fairseq file.

    Raises:
      RunError: nothing is there, it is damaged, another family's, or wants more than arrays; or
        PyTorch is needed and not installed.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: is not there; must be a folder or file of the authors' weights")
    if path.is_dir():
        config, weights = _read_folder(path)
    else:
        config, weights = _read_fairseq(path)
    try:
        return config, weights, kind_of(weights)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None


def write_checkpoint(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    *,
    form: Literal["torch", "safetensors"] = "torch",
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes what `read_checkpoint` reads: a new folder, or of a language model a fairseq file.

    Args:
      path: the folder, new or empty, or the file, which must not be there.
      form: of an encoder-decoder's weights. The version of transformers that the authors' code is
        for knows PyTorch's alone.

    Raises:
      ConfigError: something is there, or there is no such form.
      RunError: PyTorch is needed and not installed.
    """
    path, kind = Path(path), kind_of(weights)
    require_choice("form", form, ("torch", "safetensors"))
    if kind == "language-model":
        require(not path.exists(), "path", str(path), "is there already; must be a new name")
        torch = _torch(path)
        settings = {"_name": "spade_lm", **config}
        state: dict[str, Any] = {
            "args": None,
            "cfg": {"model": argparse.Namespace(**settings)},
            "model": _tensors(weights),
            "criterion": None,
            "optimizer_history": [],
            "task_state": {},
            "extra_state": {},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            torch.save(state, partial)
        return
    check_folder(path, "path")
    with whole_folder(path) as folder:
        if form == "torch":
            _torch(path).save(_tensors(weights), folder / PICKLED)
        else:
            write_tensors(
                folder,
                {name: (array.shape, array.dtype) for name, array in weights.items()},
                weights.__getitem__,
                max_shard_bytes=max_shard_bytes,
            )
        (folder / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n")


def _read_folder(folder: Path) -> tuple[dict[str, Any], TorchTensors | Tensors]:
    config = read_json(folder / CONFIG, dict, advice=_ADVICE, error=RunError)
    if config is None:
        raise RunError(f"{folder}: holds no {CONFIG}; must be a folder of the authors' weights")
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return config, read_tensors(folder)
    if (folder / PICKLED).exists():
        return config, _state_dict(folder / PICKLED, _load(folder / PICKLED))
    raise RunError(f"{folder}: holds neither {SINGLE} nor {PICKLED}")


def _read_fairseq(path: Path) -> tuple[dict[str, Any], TorchTensors]:
    data = _load(path)
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise RunError(
            f"{path}: holds no 'model'; must be a fairseq checkpoint, or the folder of an "
            "encoder-decoder"
        )
    cfg = data.get("cfg") or {}
    arguments = cfg.get("model") if isinstance(cfg, dict) else None
    settings = _plain(data.get("args") if arguments is None else arguments)
    task = _plain(cfg.get("task")) if isinstance(cfg, dict) else {}
    if not settings:
        raise RunError(f"{path}: holds no settings in 'cfg' or 'args'; must be as fairseq wrote it")
    return {
        **{name: task[name] for name in ("tokens_per_sample",) if name in task},
        **settings,
    }, _state_dict(path, data["model"])


def _plain(arguments: Any) -> dict[str, Any]:
    if isinstance(arguments, argparse.Namespace):
        return dict(vars(arguments))
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _state_dict(path: Path, data: Any) -> TorchTensors:
    import torch

    if not isinstance(data, Mapping) or not data:
        raise RunError(f"{path}: holds no state dict; must be weights by their names")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise RunError(f"{path}: {str(name)!r} is no tensor; must be weights by their names")
    return TorchTensors(data)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise RunError(
            f"{path}: needs PyTorch, which is not installed; install it, or use safetensors"
        ) from None
    return torch


def _load(path: Path) -> Any:
    """What a file of PyTorch holds, of arrays and plain values alone."""
    torch = _torch(path)
    allowed = _allowed()
    names = {item[1] if isinstance(item, tuple) else "argparse.Namespace" for item in allowed}
    try:
        wanted = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) - names
    except Exception:  # Of formats before PyTorch 1.6, and of no format: loading says which.
        wanted = set()
    if wanted:
        raise _unsafe(path, ", ".join(sorted(wanted)))
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of pickles by others: they are read or refused.
            return _mapped(torch, path)
    except Exception as error:
        # PyTorch's own advice, to load anything, is none.
        if refused := re.search(r"GLOBAL (\S+) ", str(error)):
            raise _unsafe(path, refused[1]) from None
        reason = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
        reason = reason.strip().split("\n")[0][:200]
        raise RunError(
            f"{path}: is no whole file of PyTorch ({type(error).__name__}: {reason}); {_ADVICE}"
        ) from None


def _unsafe(path: Path, wanted: str) -> RunError:
    return RunError(
        f"{path}: its pickle asks for {wanted}; must hold nothing but tensors and plain values, so "
        "save it again without the rest"
    )


def _mapped(torch: Any, path: Path) -> Any:
    how = {"map_location": "cpu", "weights_only": True}
    try:
        return torch.load(path, mmap=True, **how)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, **how)  # Files before PyTorch 1.6.


def _allowed() -> list[Any]:
    """What fairseq's files hold besides tensors: settings, and scores that are NumPy's."""
    import numpy._core.multiarray as arrays

    allowed: list[Any] = [argparse.Namespace]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        allowed += [
            (arrays.scalar, f"{module}.scalar"),
            (arrays._reconstruct, f"{module}._reconstruct"),
        ]
    allowed += [(np.dtype, "numpy.dtype"), (np.ndarray, "numpy.ndarray")]
    kinds = ("Float64DType", "Float32DType", "Int64DType", "Int32DType", "BoolDType")
    return allowed + [(getattr(np.dtypes, kind), f"numpy.dtypes.{kind}") for kind in kinds]


def _tensors(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    import torch

    def tensor(array: np.ndarray) -> Any:
        array = np.ascontiguousarray(array).reshape(array.shape)
        if array.dtype == jnp.bfloat16:
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    return {name: tensor(array) for name, array in weights.items()}
