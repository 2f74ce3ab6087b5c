"""The format "safetensors": parameters by layer, the configuration, and the way back.

model.safetensors   arrays as `interop.names` calls them, kernels [in, out]
spade.json          the model's configuration, the vocabulary's name, and the run's settings
vocabulary.model    the SentencePiece file, where the vocabulary is one
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spade_jax.config import (
    ConfigError,
    ModelConfig,
    RunError,
    from_dict,
)
from spade_jax.interop.export.job import Job, Samples, compare, compute, recomputed_by
from spade_jax.interop.names import shapes as shapes_of
from spade_jax.interop.tensor_files import TensorFileError, Tensors, read_tensors
from spade_jax.stored import read_json

ABOUT, VOCABULARY = "spade.json", "vocabulary.model"
_SHAPE = {"model": dict, "vocabulary": str, "extra_ids": int, "input_length": int, "step": int}


def check(job: Job) -> None:
    """Everything can be written so."""


def write(folder: Path, job: Job, say: Callable[[str], None]) -> None:
    """See the module."""
    job.write_parameters(folder, step=str(job.run.step))
    vocabulary = job.run.vocabulary
    if vocabulary != "bytes":
        shutil.copyfile(vocabulary, folder / VOCABULARY)
        vocabulary = VOCABULARY
    about = {
        "model": dataclasses.asdict(job.model),
        "vocabulary": vocabulary,
        "extra_ids": job.run.extra_ids,
        "input_length": job.run.input_length,
        "step": job.run.step,
        "settings": job.run.settings,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class Exported:
    """What such a folder holds.

    Attributes:
      vocabulary: "bytes", or the SentencePiece file in the folder.
    """

    config: ModelConfig
    tensors: Tensors
    vocabulary: str
    extra_ids: int
    input_length: int
    step: int


def read(folder: Path) -> Exported:
    """The way back.

    Raises:
      RunError: a file is missing or damaged, or an array is missing, left over or of another shape.
    """
    about = read_json(folder / ABOUT, _SHAPE, advice="put back a whole copy", error=TensorFileError)
    if about is None:
        raise TensorFileError(
            f"{folder}: holds no {ABOUT}; must be what --format=safetensors wrote"
        )
    try:
        config = from_dict(ModelConfig, about["model"])
    except ConfigError as error:
        raise TensorFileError(f"{folder / ABOUT}: is no model of this version ({error})") from None
    tensors = read_tensors(folder)
    require_shapes(tensors, config, folder)
    vocabulary = about["vocabulary"]
    if vocabulary != "bytes":
        vocabulary = str(folder / Path(vocabulary).name)
    return Exported(
        config, tensors, vocabulary, about["extra_ids"], about["input_length"], about["step"]
    )


def require_shapes(tensors: Tensors, config: ModelConfig, folder: Path) -> None:
    """Raises RunError where arrays are not those of a model."""
    expected = {name: tuple(one.shape) for name, one in shapes_of(config).items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise RunError(f"{folder}: lacks {name} {list(shape)}, which its model has")
        if tensors.shapes[name] != shape:
            raise RunError(
                f"{folder}: {name} is {list(tensors.shapes[name])}, must be {list(shape)}"
            )
    for name in sorted(tensors.keys() - expected.keys()):
        raise RunError(f"{folder}: holds {name}, which its model does not have")


def recomputed(folder: str, given: str) -> dict[str, np.ndarray]:
    """Logits and outputs of samples by the model that a folder holds."""
    exported = read(Path(folder))
    with np.load(given) as arrays:
        return compute(exported.config, exported.tensors, arrays)


def verify(job: Job, samples: Samples, folder: Path, given: Path) -> str:
    """What to say of the folder, read by another process; see `compare`."""
    results = recomputed_by(__name__, folder, given)
    return compare(job, samples, results["logits"], results["outputs"])
