"""Parameters by the names of their layers, one by one: how they are known outside.

Within a model, layers that repeat are one array with a leading axis, under the name of their
group: `encoder/layers_1/mixer_norm/scale` [11, d]. Outside each layer has its own, counted from the
bottom: `encoder/layers/1/mixer_norm/scale` [d] to `encoder/layers/11/mixer_norm/scale`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from spade_jax.config import ModelConfig
from spade_jax.models.build import builder
from spade_jax.trees import Tree, paths


class Origin(NamedTuple):
    """Where a layer's parameter lies within the model.

    Attributes:
      name: of the parameter, or that of all layers that repeat.
      row: of its leading axis; None where there is none.
    """

    name: str
    row: int | None


_LAYERS = re.compile(r"(\w+)/layers_(\d+)/(?:layer_(\d+)/)?(.*)")


def origins(names: Iterable[str], config: ModelConfig) -> dict[str, Origin]:
    """The names by layer of a model's parameters, each with where it lies there.

    Args:
      names: the model's, such as "encoder/layers_1/mixer_norm/scale".
    """
    found: dict[str, Origin] = {}
    for name in names:
        match = _LAYERS.fullmatch(name)
        if match is None:
            found[name] = Origin(name, None)
            continue
        stack, group_index, place, rest = match.groups()
        groups = getattr(config, stack).groups
        before = sum(len(group.layers) * group.repeat for group in groups[: int(group_index)])
        group = groups[int(group_index)]
        for row in range(group.repeat):
            layer = before + row * len(group.layers) + int(place or 0)
            found[f"{stack}/layers/{layer}/{rest}"] = Origin(
                name, None if group.repeat == 1 else row
            )
    return found


def by_layer(params: Tree, config: ModelConfig) -> dict[str, Any]:
    """A model's parameters, as nested dicts, by the names of their layers."""
    leaves = paths(params)
    return {
        name: leaves[origin.name] if origin.row is None else leaves[origin.name][origin.row]
        for name, origin in origins(leaves, config).items()
    }


def by_group(weights: Mapping[str, Any], config: ModelConfig) -> Tree:
    """The way back from `by_layer`, to numpy arrays in nested dicts.

    Raises:
      KeyError: a parameter of the model is not there.
    """
    return put_together(
        lambda name: np.asarray(weights[name]), origins(paths(_variables(config)), config), np.stack
    )


def put_together(
    get: Callable[[str], Any], places: Mapping[str, Origin], stack: Callable[[list[Any]], Any]
) -> Tree:
    """A model's parameters in nested dicts, of NumPy or of JAX.

    Args:
      get: an array by the name of its layer.
      places: as of `origins`.
      stack: puts the arrays of layers that repeat into one.
    """
    flat: dict[str, Any] = {}
    rows: dict[str, list[Any]] = {}
    for name, origin in places.items():
        if origin.row is None:
            flat[origin.name] = get(name)
        else:
            rows.setdefault(origin.name, []).append(get(name))
    flat |= {name: stack(arrays) for name, arrays in rows.items()}
    return unflatten_dict({tuple(name.split("/")): array for name, array in flat.items()})


def shapes(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Of all parameters of a model of this configuration, by layer."""
    leaves = paths(_variables(config))
    return {
        name: jax.ShapeDtypeStruct(
            leaves[origin.name].shape[0 if origin.row is None else 1 :], leaves[origin.name].dtype
        )
        for name, origin in origins(leaves, config).items()
    }


def _variables(config: ModelConfig) -> Tree:
    """The model's parameters as nested dicts of shapes."""
    create = builder(config)
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: create(nnx.Rngs(0))), nnx.Param))
