import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spade_jax.config import ConfigError
from spade_jax.training.config import OptimizerConfig
from spade_jax.training.optimizer import (
    ParameterKind,
    join,
    look_up,
    make_optimizer,
)
from spade_jax.trees import paths

PARAMS = {
    "layers": {0: {"norm": jnp.ones(3), "w": jnp.full((3, 3), 2.0)}},
    "global_mixer": {"a_ssm": jnp.full(3, -1.0)},
}


KINDS = {
    "layers/0/norm": ParameterKind(decays=False),
    "layers/0/w": ParameterKind(),
    "global_mixer/a_ssm": ParameterKind(decays=False, group="ssm"),
}


DEFAULTS = dict.fromkeys(KINDS, 1.0)


def test_first_match_wins_and_none_is_the_default():
    table = ((r".*/w", 0.5), (r"layers/.*", None), (r".*", 0.25))
    assert look_up(table, dict.fromkeys(KINDS, 7.0), "optimizer.learning_rates") == {
        "layers/0/norm": 7.0,
        "layers/0/w": 0.5,
        "global_mixer/a_ssm": 0.25,
    }


def test_every_parameter_must_be_matched():
    with pytest.raises(ConfigError, match=r"no pattern matches parameter global_mixer/a_ssm"):
        look_up(((r"layers/.*", None),), DEFAULTS, "optimizer.learning_rates")


def test_every_pattern_must_match():
    with pytest.raises(ConfigError, match=r"'.\*ssm_b': matches no parameter"):
        look_up(((".*ssm_b", 0.1), (".*", None)), DEFAULTS, "optimizer.learning_rates")


def updates_of(config, steps=10, count=1):
    optimizer = make_optimizer(config, steps, PARAMS, KINDS)
    trainable, frozen = optimizer.split(PARAMS)
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.5), trainable)
    state = optimizer.transformation.init(trainable)
    for _ in range(count):
        updates, state = optimizer.transformation.update(grads, state, trainable)
    return paths(updates), paths(frozen), state


def test_adamw_with_own_rates_and_decays():
    config = OptimizerConfig(
        learning_rate=0.1,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.01,
        clip_norm=None,
        learning_rates=((".*ssm.*", 0.001), (".*", None)),
    )
    updates, frozen, _ = updates_of(config)
    # Adam's first step is the sign of the gradient; only "w" decays.
    np.testing.assert_allclose(updates["layers/0/w"], np.full((3, 3), -0.1 * (1 + 0.02)), rtol=1e-5)
    np.testing.assert_allclose(updates["layers/0/norm"], np.full(3, -0.1), rtol=1e-5)
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -0.001), rtol=1e-5)
    assert frozen == {}


def test_own_rates_follow_the_schedule():
    config = OptimizerConfig(
        schedule="linear",
        warmup_steps=0,
        final_fraction=0.0,
        clip_norm=None,
        learning_rates=((".*ssm.*", 0.004), (".*", None)),
    )
    updates, _, _ = updates_of(config, steps=5, count=3)
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -0.002), rtol=1e-5)


def test_groups_have_rates_of_their_own_and_patterns_come_first():
    config = OptimizerConfig(
        learning_rate=0.1,
        schedule="constant",
        warmup_steps=0,
        clip_norm=None,
        group_rates=(("ssm", 0.001),),
    )
    updates, _, _ = updates_of(config)
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -0.001), rtol=1e-5)
    np.testing.assert_allclose(updates["layers/0/norm"], np.full(3, -0.1), rtol=1e-5)
    table = (("global_mixer/.*", 0.5), (".*", None))
    updates, _, _ = updates_of(dataclasses.replace(config, learning_rates=table))
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -0.5), rtol=1e-5)
    with pytest.raises(ConfigError, match=r"group_rates = .*must name groups .*: main, ssm"):
        updates_of(dataclasses.replace(config, group_rates=(("s4", 0.001),)))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "nag"])
def test_frozen_parameters_have_no_slots(name):
    common = {"name": name, "warmup_steps": 1}
    updates, frozen, state = updates_of(OptimizerConfig(**common))
    assert set(updates) == {"layers/0/norm", "layers/0/w", "global_mixer/a_ssm"}
    all_slots = len(jax.tree.leaves(state))
    table = ((".*ssm.*", 0.0), (".*", None))
    updates, frozen, state = updates_of(OptimizerConfig(**common, learning_rates=table))
    assert set(updates) == {"layers/0/norm", "layers/0/w"}
    assert set(frozen) == {"global_mixer/a_ssm"}
    assert all_slots - len(jax.tree.leaves(state)) == {"adamw": 2, "adafactor": 3, "nag": 1}[name]


def test_freezing_everything_is_rejected():
    with pytest.raises(ConfigError, match="freezes every parameter"):
        make_optimizer(OptimizerConfig(learning_rates=((".*", 0.0),)), 10_000, PARAMS, KINDS)


def test_clipping_scales_to_the_norm():
    config = OptimizerConfig(
        name="adamw",
        learning_rate=1.0,
        schedule="constant",
        warmup_steps=0,
        clip_norm=1e-3,
        eps=1.0,
    )
    updates, _, _ = updates_of(OptimizerConfig(**{**vars(config), "weight_decay": 0.0}))
    # 15 equal entries of a gradient of norm 1e-3; with eps = 1, Adam's step is g / (g + 1).
    g = 1e-3 / np.sqrt(15)
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -g / (g + 1)), rtol=1e-4)


def test_nag_is_nesterov_s_momentum_with_its_velocity_in_steps():
    """Velocities of earlier rates are scaled to the present one, and all parameters decay alike."""
    momentum, peak, decay = 0.9, 0.5, 0.1
    config = OptimizerConfig(
        name="nag",
        learning_rate=peak,
        schedule="linear",
        warmup_steps=2,
        final_fraction=0.0,
        momentum=momentum,
        weight_decays=((".*", decay),),
        clip_norm=None,
    )
    transformation = make_optimizer(config, 5, PARAMS, KINDS).transformation
    parameters, state = PARAMS, transformation.init(PARAMS)
    rng = np.random.default_rng(0)
    names = paths(PARAMS)
    expected = {name: np.asarray(value, np.float64) for name, value in names.items()}
    velocity, last = dict.fromkeys(names, 0.0), peak
    for fraction in (0.5, 1.0, 2 / 3, 1 / 3):
        grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), PARAMS)
        updates, state = transformation.update(grads, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        rate = peak * fraction
        for name, gradient in paths(grads).items():
            ahead = momentum * rate / last * velocity[name]
            expected[name] = expected[name] * (1 - rate * decay)
            expected[name] += momentum * ahead - (1 + momentum) * rate * np.asarray(gradient)
            velocity[name] = ahead - rate * np.asarray(gradient)
        last = rate
        for name, value in paths(parameters).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


def test_the_recipe_of_state_spaces():
    """Their dynamics have a rate of their own and no decay; all else decays by its own rate."""
    config = OptimizerConfig(
        learning_rate=0.01,
        schedule="constant",
        warmup_steps=0,
        betas=(0.9, 0.999),
        weight_decay=0.05,
        clip_norm=None,
        group_rates=(("ssm", 1e-3),),
    )
    updates, _, _ = updates_of(config)
    np.testing.assert_allclose(updates["global_mixer/a_ssm"], np.full(3, -1e-3), rtol=1e-5)
    decayed = np.full((3, 3), -0.01 * (1 + 0.05 * 2))
    np.testing.assert_allclose(updates["layers/0/w"], decayed, rtol=1e-5)


def test_adamw_may_decay_all_parameters():
    config = OptimizerConfig(
        learning_rate=0.1,
        schedule="constant",
        warmup_steps=0,
        clip_norm=None,
        weight_decays=((".*", 0.01),),
    )
    updates, _, _ = updates_of(config)
    for name, value in (("layers/0/w", 2.0), ("layers/0/norm", 1.0), ("global_mixer/a_ssm", -1.0)):
        np.testing.assert_allclose(updates[name], -0.1 * (1 + 0.01 * value), rtol=1e-5)


def test_statistics_are_in_no_table_and_stay():
    kinds = KINDS | {"layers/0/norm": ParameterKind(statistic=True)}
    config = OptimizerConfig(learning_rates=(("(layers/0/w|global.*)", 1.0),))
    optimizer = make_optimizer(config, 10_000, PARAMS, kinds)
    assert optimizer.trainable == {"layers/0/w", "global_mixer/a_ssm"}


def test_adafactor_steps_relative_to_the_parameter():
    config = OptimizerConfig(
        name="adafactor",
        learning_rate=0.1,
        schedule="constant",
        warmup_steps=0,
        clip_norm=None,
        weight_decay=0.0,
    )
    updates, _, _ = updates_of(config)
    reference = optax.adafactor(0.1, decay_rate=0.8)
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.5), PARAMS)
    expected, _ = reference.update(grads, reference.init(PARAMS), PARAMS)
    for name, value in paths(expected).items():
        np.testing.assert_allclose(updates[name], value, rtol=1e-6)
    # A step of root mean square 1, times that of the parameter, times the rate.
    np.testing.assert_allclose(updates["layers/0/w"], np.full((3, 3), -0.2), rtol=1e-5)


def test_split_and_join_are_inverse():
    config = OptimizerConfig(learning_rates=((".*norm", 0.0), (".*", None)))
    optimizer = make_optimizer(config, 10_000, PARAMS, KINDS)
    trainable, frozen = optimizer.split(PARAMS)
    assert set(paths(trainable)) == {"layers/0/w", "global_mixer/a_ssm"}
    joined = join(trainable, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(PARAMS)
    assert all(paths(joined)[name] is leaf for name, leaf in paths(PARAMS).items())


def test_adafactor_takes_stacked_layers_one_by_one():
    """A stack of a small and a large layer is updated as the two apart are, factored or not."""
    config = OptimizerConfig(name="adafactor", warmup_steps=1, clip_norm=None)
    rng = np.random.default_rng(0)

    def layers(scales):
        return {
            "kernel": np.stack([s * rng.normal(size=(128, 130)) for s in scales]),
            "norm": np.stack([s * rng.normal(size=5) for s in scales]),
        }

    params = jax.tree.map(jnp.float32, layers((1.0, 1e-2)))
    grads = [jax.tree.map(jnp.float32, layers((1.0, 10.0))) for _ in range(2)]

    def updates(params, grads, stacked=False):
        kinds = dict.fromkeys(params, ParameterKind(stacked=stacked))
        transformation = make_optimizer(config, 10, params, kinds).transformation
        state = transformation.init(params)
        for gradient in grads:
            found, state = transformation.update(gradient, state, params)
        return found

    together = updates(params, grads, stacked=True)
    for layer in range(2):
        one = jax.tree.map(lambda array, layer=layer: array[layer], (params, grads))
        for name, alone in updates(*one).items():
            np.testing.assert_allclose(together[name][layer], alone, rtol=1e-5)
    as_one = updates(params, grads)
    assert np.abs(as_one["kernel"] / together["kernel"] - 1).max() > 0.1
