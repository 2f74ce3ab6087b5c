import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError
from spade_jax.config.file import read_config
from spade_jax.training.config import OptimizerConfig
from spade_jax.training.optimizer import (
    ParameterKind,
    join,
    look_up,
    make_optimizer,
    schedule_shape,
)
from spade_jax.trees import paths

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
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


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 0.775, 0.55, 0.325, 0.1]),
        (
            "cosine",
            [0.25, 0.5, 0.75, 1, *(0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)))],
        ),
        ("inverse_sqrt", [0.25, 0.5, 0.75, 1, *np.sqrt(4 / np.arange(5, 9))]),
        # T5 counts the updates before: 1 / sqrt(max(updates done, warmup_steps)) over its peak.
        ("rsqrt_decay", [1, 1, 1, 1, 1, *np.sqrt(4 / np.arange(5, 8))]),
    ],
)
def test_schedule_by_update(schedule, expected):
    config = OptimizerConfig(schedule=schedule, warmup_steps=4, final_fraction=0.1)
    shape = schedule_shape(config, steps=8)
    np.testing.assert_allclose([shape(u) for u in range(8)], expected, rtol=1e-6)


@pytest.mark.parametrize("size", ["base", "large"])
def test_t5_s_rates(size):
    config = read_config(str(CONFIGS / f"{size}.py"), {}, PretrainConfig, "pretrain")
    shape = schedule_shape(config.optimizer, config.train.steps)
    rates = [config.optimizer.learning_rate * shape(u - 1) for u in (1, 10_000, 100_000)]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.1**2.5], rtol=1e-5)


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warmup_begins_at_the_peak_and_ends_at_the_final_fraction(warmup):
    config = OptimizerConfig(schedule="linear", warmup_steps=warmup, final_fraction=0.0)
    shape = schedule_shape(config, steps=5)
    np.testing.assert_allclose([shape(u) for u in range(5)], [1, 0.75, 0.5, 0.25, 0], atol=1e-7)


def test_warmup_longer_than_the_run_is_rejected():
    with pytest.raises(ConfigError, match=r"optimizer.warmup_steps = 8: must be below .* 8"):
        schedule_shape(OptimizerConfig(schedule="cosine", warmup_steps=8), steps=8)


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


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_frozen_parameters_have_no_slots(name):
    common = {"name": name, "warmup_steps": 1}
    updates, frozen, state = updates_of(OptimizerConfig(**common))
    assert set(updates) == {"layers/0/norm", "layers/0/w", "global_mixer/a_ssm"}
    all_slots = len(jax.tree.leaves(state))
    table = ((".*ssm.*", 0.0), (".*", None))
    updates, frozen, state = updates_of(OptimizerConfig(**common, learning_rates=table))
    assert set(updates) == {"layers/0/norm", "layers/0/w"}
    assert set(frozen) == {"global_mixer/a_ssm"}
    assert all_slots - len(jax.tree.leaves(state)) == {"adamw": 2, "adafactor": 3}[name]


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
