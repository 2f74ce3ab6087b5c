"""Any value of any number of a configuration: it makes a valid configuration, or one sentence."""

import copy
import dataclasses
import json
import math
import random
import time
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from spade_jax import programs
from spade_jax.config import ConfigError, Kinds, MixerConfig, from_dict
from spade_jax.config.file import read_settings
from spade_jax.config.hosts import HostsConfig
from spade_jax.decoding.config import DecodingConfig

ROOT = Path(__file__).parents[1]
BASES = {
    PretrainConfig: read_settings(str(ROOT / "tests/pretrain/miniature.py"), {}, "pretrain"),
    FinetuneConfig: read_settings(str(ROOT / "configs/finetune/quickstart.py"), {}, "finetune"),
}
BASES[FinetuneConfig]["model"] = BASES[PretrainConfig]["model"]
for base in BASES.values():
    base["optimizer"]["group_rates"] = [["ssm", 1e-3]]
BASES[DecodingConfig] = {}
BASES[HostsConfig] = {"coordinator": "localhost:1234", "processes": 2, "process": 0}
VALUES = [
    *(-1, 0, 1, 2**31, 10**12, 10**19, 10**400, 10**5000, -(10**400)),
    *(-1.5, 1e-320, 1e30, 1e31, 1e308, math.inf, -math.inf, math.nan, 2j),
    *("many", "1", "", "\0", "\udcff", "²", b"x", None, True, [], [1, 2, 3], {}, {"a": 1}, {1: 2}),
    *((), {1}, ..., [[[[]]]]),
]


def numbers(hint, path):
    """The places below `path` where a value of this type has a number."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float):
        yield path
    elif dataclasses.is_dataclass(hint):
        if issubclass(hint, Kinds) and not hint.kind:
            hint = hint.KINDS[hint.DEFAULT]
        for name, inner in typing.get_type_hints(hint).items():
            yield from numbers(inner, [*path, name])
    elif origin in (types.UnionType, typing.Union):
        for option in options:
            yield from numbers(option, path)
    elif origin is Mapping:
        for kind in BASES[PretrainConfig]["model"]["mixers"]:
            yield from numbers(MixerConfig.KINDS[kind], [*path, kind])
    elif origin is tuple:
        entries = [options[0]] if options[-1] is ... else options
        for index, entry in enumerate(entries):
            yield from numbers(entry, [*path, index])


def changed(settings, path, value):
    """The settings with a value in one place; where that is in a tuple that is None, in a new one
    of two equal entries."""
    settings = copy.deepcopy(settings)
    inside = settings
    for i, part in enumerate(path[:-1]):
        if isinstance(inside, dict) and inside.get(part) is None:
            inside[part] = {} if isinstance(path[i + 1], str) else [value] * 2
        inside = inside[part]
    inside[path[-1]] = value
    return settings


PLACES = [(config_class, path) for config_class in BASES for path in numbers(config_class, [])]


def test_the_walk_finds_numbers_of_all_kinds():
    found = {".".join(map(str, path)) for _, path in PLACES}
    for name in (
        "model.vocab_size",
        "model.mixers.s4.dt_max",
        "model.encoder.max_positions",
        "data.sources.0.weight",
        "optimizer.betas.1",
        "optimizer.learning_rates.0.1",
        "train.profile_steps.0",
        "task.extra_ids",
        "timeout",
        "top_p",
    ):
        assert name in found
    assert len(PLACES) > 100


@pytest.mark.parametrize(
    ("config_class", "path"), PLACES, ids=[".".join(map(str, path)) for _, path in PLACES]
)
def test_a_value_is_right_or_named_in_one_sentence(config_class, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(part for part in reversed(path) if isinstance(part, str))
    for value in VALUES:
        settings = changed(BASES[config_class], path, value)
        begin = time.monotonic()
        try:
            config = from_dict(config_class, settings)
        except ConfigError as error:
            said = str(error)
            assert name in said
            assert "\n" not in said
            assert len(said) < 2000
            assert ": " in said
        else:
            assert isinstance(config, config_class)
            assert not isinstance(value, int | float) or abs(value) <= 1e30
            json.dumps(dataclasses.asdict(config), allow_nan=False)
            if config_class is PretrainConfig:
                assert config.data.decoder_length > 0
        assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


def test_arguments_of_a_command_line_are_right_or_named(tmp_path, monkeypatch):
    """Texts as people write them, one in each of many places."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    texts = [
        *(
            "-1",
            "0",
            "1" * 13,
            "1" * 20,
            "1" * 5000,
            "1e30",
            "-1e999",
            "1e999",
            "nan",
            "inf",
            "1e-320",
        ),
        *(
            "-" * 100_000 + "1",
            "[" * 5000,
            "{[]: 1}",
            "(1,)",
            "²",
            "",
            "'",
            "None",
            "0x",
            "1_0",
            "2j",
        ),
    ]
    places = [path for config_class, path in PLACES if config_class is PretrainConfig]
    for text in texts:
        for path in draw.sample(places, 4):
            option = f"--config.{'.'.join(map(str, path))}={text}"
            arguments = [
                f"--config={ROOT / 'tests/pretrain/miniature.py'}",
                "--workdir=run",
                option,
            ]
            try:
                command = programs.parse(arguments, PretrainConfig, "pretrain", "", {})
            except ConfigError as error:
                said = str(error)
                assert any(part in said for part in path if isinstance(part, str))
                assert len(said) < 2000
            else:
                assert isinstance(command.config, PretrainConfig)
    assert list(tmp_path.iterdir()) == []
