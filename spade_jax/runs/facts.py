"""facts.json: what a run is of, as it stood when it was last started."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from spade_jax.config import RunError
from spade_jax.runs.workdir import replace_file
from spade_jax.stored import read_json
from spade_jax.trees import paths

# Packages whose versions are kept.
_PACKAGES = ("spade-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "seqio")

_FACTS = {
    "program": str,
    "data": [dict],
    "notes": [str],
    "files": {str: {str: str}},
    "parameters": int,
    "trained": int,
    "devices": str,
    "processes": int,
    "versions": {str: str},
}


def write_facts(
    workdir: Path,
    *,
    program: str,
    data: Sequence[Mapping[str, str | int]],
    notes: Iterable[str],
    files: Mapping[str, Mapping[str, str]],
    params: Any,
    trainable: frozenset[str],
    mesh: Mesh,
) -> None:
    """Writes facts.json.

    Args:
      data: of each set its name, how many examples it has, and so on, by names of columns.
      notes: what else there is to say of the data, in sentences.
      files: for each setting the files that it names, each with a digest of what it holds.
      params: a tree of arrays or their shapes, of which `trainable` are trained.
    """
    sizes = {name: math.prod(leaf.shape) for name, leaf in paths(params).items()}
    facts = {
        "program": program,
        "data": list(data),
        "notes": list(notes),
        "files": files,
        "parameters": sum(sizes.values()),
        "trained": sum(size for name, size in sizes.items() if name in trainable),
        "devices": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
        "processes": jax.process_count(),
        "versions": _versions(),
    }
    replace_file(workdir / "facts.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def read_facts(workdir: Path) -> dict[str, Any] | None:
    """What facts.json tells; None without one.

    Raises:
      RunError: it is damaged.
    """
    advice = "delete it, and the next start of the run writes it anew"
    return read_json(workdir / "facts.json", _FACTS, advice=advice, error=RunError)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # Run from a folder, not installed.
            continue
    return found
