"""The optimiser: AdamW, Adafactor or NAG, and rates that differ between parameters."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from spade_jax.config import ConfigError, require
from spade_jax.training.config import OptimizerConfig, RateTable
from spade_jax.training.schedule import schedule_shape
from spade_jax.trees import Tree, paths


class ParameterKind(NamedTuple):
    """What a parameter says of itself.

    Attributes:
      decays: whether weight decay applies to it.
      group: of learning rates.
      stacked: whether it has a leading axis of layers, which are optimised as each layer's own
        would be.
      statistic: whether it is measured, and not learned.
    """

    decays: bool = True
    group: str = "main"
    stacked: bool = False
    statistic: bool = False


def look_up(table: RateTable, defaults: Mapping[str, float], setting: str) -> dict[str, float]:
    """The rate of every parameter: that of the first pattern that matches its whole path.

    Args:
      defaults: by parameter, what None stands for.

    Raises:
      ConfigError: a parameter that no pattern matches, or a pattern that matches no parameter.
    """
    rates = {}
    unused = {pattern for pattern, _ in table}
    for name, default in defaults.items():
        matching = [(pattern, rate) for pattern, rate in table if re.fullmatch(pattern, name)]
        if not matching:
            raise ConfigError(
                f"{setting}: no pattern matches parameter {name}; end the table with ('.*', None)"
            )
        unused -= {pattern for pattern, _ in matching}
        rates[name] = default if matching[0][1] is None else matching[0][1]
    if unused:
        raise ConfigError(
            f"{setting} = {min(unused)!r}: matches no parameter; the overview of parameters "
            f"lists them, such as {min(rates)}"
        )
    return rates


class Optimizer(NamedTuple):
    """What the train step needs of an optimiser.

    Attributes:
      transformation: the optax chain; it sees the trainable parameters alone.
      learning_rate: the model's own rate, by updates done before.
      trainable: names of the parameters whose rate is not zero.
    """

    transformation: optax.GradientTransformation
    learning_rate: optax.Schedule
    trainable: frozenset[str]

    def split(self, parameters: Tree) -> tuple[Tree, Tree]:
        """The trainable and the frozen parameters, each as nested dicts without the others."""
        flat = flatten_dict(parameters)
        names = {path: "/".join(map(str, path)) for path in flat}
        return (
            unflatten_dict({p: v for p, v in flat.items() if names[p] in self.trainable}),
            unflatten_dict({p: v for p, v in flat.items() if names[p] not in self.trainable}),
        )


def join(*trees: Tree) -> Tree:
    """What `Optimizer.split` took apart; of a parameter in several trees, the last one's."""
    flat: dict[Any, Any] = {}
    for tree in trees:
        flat |= flatten_dict(tree)
    return unflatten_dict(flat)


def make_optimizer(
    config: OptimizerConfig,
    steps: int,
    parameters: Tree,
    kinds: Mapping[str, ParameterKind],
) -> Optimizer:
    """The optimiser of a run of `steps` updates of `parameters` (nested dicts; shapes suffice).

    Args:
      kinds: of each parameter, by name.

    Raises:
      ConfigError: a table that does not fit the parameters, or nothing to train.
    """
    own_rates, own_decays = {}, {}
    groups = dict(config.group_rates)
    require(
        groups.keys() <= {kind.group for kind in kinds.values()},
        "optimizer.group_rates",
        config.group_rates,
        f"must name groups of parameters: {', '.join(sorted({k.group for k in kinds.values()}))}",
    )
    for name in paths(parameters):
        if kinds[name].statistic:
            continue
        own_rates[name] = groups.get(kinds[name].group, config.learning_rate)
        own_decays[name] = config.weight_decay if kinds[name].decays else 0.0
    peaks = look_up(config.learning_rates, own_rates, "optimizer.learning_rates")
    decays = look_up(config.weight_decays, own_decays, "optimizer.weight_decays")
    trainable = frozenset(name for name, peak in peaks.items() if peak > 0)
    require(
        bool(trainable),
        "optimizer.learning_rates",
        config.learning_rates,
        "freezes every parameter: one rate at least must be above 0",
    )
    shape = schedule_shape(config, steps)
    if config.name == "adamw":
        direction = optax.scale_by_adam(*config.betas, eps=config.eps)
    elif config.name == "nag":
        # Its step is not scaled by rates yet: a velocity of steps would have to be, whenever the
        # rate changes.
        direction = optax.trace(config.momentum, nesterov=True)
    else:
        direction = optax.chain(
            optax.scale_by_factored_rms(decay_rate=config.decay_exponent),
            _layer_by_layer(
                optax.chain(optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()),
                frozenset(name for name, kind in kinds.items() if kind.stacked),
            ),
        )
    transformation = optax.chain(
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm),
        direction,
        _decay_and_scale(peaks, decays),
        optax.scale_by_schedule(shape),
    )
    return Optimizer(transformation, lambda count: config.learning_rate * shape(count), trainable)


def _layer_by_layer(
    transformation: optax.GradientTransformation, stacked: frozenset[str]
) -> optax.GradientTransformation:
    """A stateless transformation of each parameter, and of each layer of the stacked ones."""

    def of_one(u: jax.Array, p: jax.Array) -> jax.Array:
        return transformation.update(u, transformation.init(p), p)[0]

    def update(updates: Tree, parameters: Tree) -> Tree:
        def one(path: Any, u: jax.Array, p: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return (jax.vmap(of_one) if name in stacked else of_one)(u, p)

        return jax.tree_util.tree_map_with_path(one, updates, parameters)

    return optax.stateless(update)


def _decay_and_scale(
    peaks: Mapping[str, float], decays: Mapping[str, float]
) -> optax.GradientTransformation:
    """Update u of parameter p with peak rate r and weight decay w becomes -r (u + w p)."""

    def update(updates: Tree, parameters: Tree) -> Tree:
        def one(path: Any, u: jax.Array, p: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return -peaks[name] * (u + decays[name] * p)

        return jax.tree_util.tree_map_with_path(one, updates, parameters)

    return optax.stateless(update)
