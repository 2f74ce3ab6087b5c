"""Nested dicts of arrays, such as a model's parameters, by the paths of their leaves."""

from typing import Any

from flax.traverse_util import flatten_dict

Tree = Any


def paths(tree: Tree) -> dict[str, Any]:
    """Leaves of nested dicts by their path, such as "encoder/layers/0/norm/scale"."""
    return {"/".join(map(str, path)): leaf for path, leaf in flatten_dict(tree).items()}
