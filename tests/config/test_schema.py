"""Ranges, and what else every setting is checked for."""

import dataclasses
import math
import types
import typing

import pytest

import finetune.config
import pretrain.config
import spade_jax.config.hosts
import spade_jax.config.model
import spade_jax.data.config
import spade_jax.data.task_config
import spade_jax.decoding.config
import spade_jax.mixers
import spade_jax.training.config
from spade_jax.config import (
    AttentionConfig,
    ConfigError,
    Range,
    from_dict,
    nearest,
    require_pattern,
    shown,
)
from spade_jax.config.pattern import Group
from spade_jax.config.schema import field_hints
from spade_jax.mixers import S4

MODULES = (
    spade_jax.config.hosts,
    spade_jax.config.model,
    spade_jax.mixers,
    spade_jax.data.config,
    spade_jax.data.task_config,
    spade_jax.decoding.config,
    spade_jax.training.config,
    finetune.config,
    pretrain.config,
)
CONFIGS = {
    value
    for module in MODULES
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and value not in (Range, Group)
}


def without_range(hint):
    """Whether a type has a number, other than a truth value, that no Range bounds."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = [option for option in options if isinstance(option, Range)]
        assert len(limits) == 1
        assert math.isfinite(limits[0].low)
        assert math.isfinite(limits[0].high)
        return False
    if origin in (types.UnionType, typing.Union, tuple):
        return any(without_range(option) for option in options)
    return hint in (int, float, complex)


@pytest.mark.parametrize("config", sorted(CONFIGS, key=lambda c: c.__name__))
def test_every_number_of_every_configuration_has_a_finite_range(config):
    for name, hint in field_hints(config).items():
        assert not without_range(hint), f"{config.__name__}.{name}"


def test_the_configurations_are_found():
    names = {config.__name__ for config in CONFIGS}
    assert {"ModelConfig", "S4", "Window", "TrainConfig", "HostsConfig"} <= names
    assert {"DataConfig", "TaskConfig", "DecodingConfig", "FinetuneConfig"} <= names


@pytest.mark.parametrize(
    ("limits", "value", "right"),
    [
        (Range(1, 8), 0, "at least 1"),
        (Range(1, 8), 9, "at most 8"),
        (Range(1, 8), 8, ""),
        (Range(0, 1, above=True), 0, "above 0"),
        (Range(0, 1, below=True), 1, "below 1"),
        (Range(0, 1), math.nan, "at least 0 and at most 1"),
        (Range(0, 1), -math.inf, "at least 0"),
        (Range(0, 1), 10**400, "at most 1"),
    ],
)
def test_a_range_says_which_of_its_ends_is_passed(limits, value, right):
    assert limits.wrong(value) == right


def test_what_none_stands_for_is_said_where_it_can_be():
    with pytest.raises(ConfigError) as refused:
        S4(max_kernel_length=0)
    assert str(refused.value) == (
        "model.mixers.s4.max_kernel_length = 0: must be at least 1, or None for a kernel that is "
        "never cut"
    )


@pytest.mark.parametrize("value", [math.nan, "64", None, True])
def test_a_dataclass_checks_what_it_is_made_of(value):
    with pytest.raises(
        ConfigError, match=r"^model\.mixers\.s4\.state_size = .*: must be int, not "
    ):
        S4(state_size=value)


def test_values_in_messages_fit_on_a_line():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(10**5000) == "<int that is too large to show>"
    assert shown(nested) == "<list that is too large to show>"
    assert shown("x") == "'x'"
    assert shown("0" * 10**6).startswith("'000")
    for value in ("0" * 10**6, 10**4000, [1] * 10**5, "\n" * 1000):
        assert len(shown(value)) < 700
        assert "\n" not in shown(value)


def test_names_that_are_no_texts_have_a_nearest_one():
    with pytest.raises(ConfigError, match=r"config.5: no such setting; known: head_dim"):
        from_dict(AttentionConfig, {5: 1})
    assert nearest("5", ["a"]) == "; known: a"


@pytest.mark.parametrize("pattern", ["(" * 50_000, "a{" + "9" * 20 + "}", "a{" + "9" * 5000 + "}"])
def test_patterns_that_python_cannot_read_are_none(pattern):
    with pytest.raises(ConfigError, match="must be a regular expression"):
        require_pattern("optimizer.learning_rates", pattern)
