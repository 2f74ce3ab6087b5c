"""Configuration files as people write them, and settings that override theirs."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError, file
from spade_jax.config.file import parse_overrides, read_config, read_settings
from spade_jax.models.presets import preset

QUICKSTART = Path(__file__).parents[2] / "configs" / "pretrain" / "quickstart.py"


@pytest.fixture
def read(tmp_path):
    def read_file(text, overrides=()):
        file = tmp_path / "mine.py"
        file.write_text(text)
        return read_settings(str(file), dict(overrides), "pretrain")

    return read_file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1 / 0\n", "must make a configuration, but line 1 raises ZeroDivisionError (division"),
        (
            "def get_config():\n    return {}['steps']\n",
            "must make a configuration, but line 2 raises KeyError ('steps')",
        ),
        (
            "def get_config():\n    return get_config()\n",
            "must make a configuration, but line 2 raises RecursionError (maximum recursion",
        ),
        ("import no_such_module\n", "line 1 raises ModuleNotFoundError (No module named"),
        (
            "import sys\n\ndef get_config():\n    sys.exit(3)\n",
            "must make a configuration, but line 4 raises SystemExit (3)",
        ),
        ("import json\njson.loads('{')\n", "but line 2 raises JSONDecodeError (Expecting"),
        ("exec('1 +')\n", "but line 1 raises SyntaxError (invalid syntax"),
        ("get_config = 3\n", "must define get_config(), which returns the configuration"),
        ("def get_config(size):\n    return {}\n", "get_config() must need no arguments"),
        ("def get_config():\n    pass\n", "must return a ConfigDict or a dict, not NoneType"),
        (
            "def get_config():\n    a = {}\n    a['a'] = a\n    return a\n",
            "must make a configuration, but it raises RecursionError",
        ),
        ("def get_config(:\n", "must be a Python file (line 1: "),
        ("a = 1\0\n", "must be a Python file ("),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(read, text, message):
    with pytest.raises(ConfigError) as refused:
        read(text)
    said = str(refused.value)
    assert said.startswith("--config = '")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from spade_jax.command_line import x", "spade_jax.command_line", "spade_jax.config.file"),
        (
            "from spade_jax.config import SSMConfig",
            "spade_jax.config.SSMConfig",
            "spade_jax.mixers.S4",
        ),
        (
            "from spade_jax.config import StackConfig, preset",
            "spade_jax.config.preset",
            "spade_jax.models.presets.preset",
        ),
        ("AttentionConfig(radius=31)", "AttentionConfig.radius", "model.mixers.window.radius"),
        (
            "PretrainConfig(print_sharding=True)",
            "PretrainConfig.print_sharding",
            "--print_sharding",
        ),
    ],
)
def test_what_has_another_name_now(read, line, old, new, monkeypatch):
    monkeypatch.setitem(sys.modules, "spade_jax.command_line", None)
    imports = (
        "from pretrain.config import PretrainConfig\nfrom spade_jax.config import AttentionConfig"
    )
    with pytest.raises(ConfigError) as refused:
        read(f"{imports}\n{line}\n")
    assert str(refused.value).endswith(f": line 3 uses {old}, which is called {new} now")


def test_names_of_today_are_there():
    for name in file.MOVED.values():
        module, _, attribute = name.rpartition(".")
        assert attribute in dir(importlib.import_module(module)) or importlib.import_module(name)


def test_what_a_file_says_itself_is_passed_on(read):
    text = "from spade_jax.mixers import S4\ndef get_config():\n    S4(state_size=5)\n"
    with pytest.raises(ConfigError, match=r"^model\.mixers\.s4\.state_size = 5: must be even"):
        read(text)


def test_defaults_of_get_config_are_its_own(read):
    assert read("def get_config(steps=3):\n    return {'steps': steps}\n") == {"steps": 3}


@pytest.mark.parametrize("name", ["a.²", "a.-1", "a.01", "a.2", "a.", "a.0.0.1"])
def test_settings_that_are_not_there(read, name):
    with pytest.raises(ConfigError, match=r"no such setting|has no setting"):
        read("def get_config():\n    return {'a': [[1], 2]}\n", {name: 5})


def test_names_that_a_file_lacks_are_for_the_configuration_to_know(read):
    text = "def get_config():\n    return {'a': {}}\n"
    assert read(text, {"b.c": 5, "a.d": 6}) == {"a": {"d": 6}, "b": {"c": 5}}


def test_a_name_may_end_in_two_equal_parts(read):
    text = "def get_config():\n    return {'a': [[1, 2], {'x': {'x': 3}}]}\n"
    assert read(text, {"a.0.0": 5}) == {"a": [[5, 2], {"x": {"x": 3}}]}
    assert read(text, {"a.1.x.x": 5}) == {"a": [[1, 2], {"x": {"x": 5}}]}


def test_names_of_many_letters_are_cut_in_messages(read):
    with pytest.raises(ConfigError) as refused:
        read("def get_config():\n    return {'a': []}\n", {"a." + "x" * 100_000: 5})
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "text", ["-" * 100_000 + "1", "(" * 100_000, "[" * 1000 + "]" * 1000, "{[]: 1}", "1" * 5000]
)
def test_texts_that_python_cannot_read_stay_texts(text):
    parser = argparse.ArgumentParser()
    assert parse_overrides([f"--config.a={text}"], parser) == {"a": text}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.lr", "'config.optimizer.learning_rate'"),
        ("train.learning_rate", "'config.optimizer.learning_rate'"),
        ("model.layers", "'config.model.encoder.layers' or 'config.model.decoder.layers'"),
        ("optimizer.epochs", "'config.train.steps'"),
        ("train.stepz", "'steps'"),
    ],
)
def test_a_setting_of_another_branch_or_name_is_found(name, meant):
    with pytest.raises(ConfigError) as error:
        read_config(str(QUICKSTART), {name: 1}, PretrainConfig, "pretrain")
    assert str(error.value) == f"config.{name}: no such setting; did you mean {meant}?"


def test_a_file_is_found_by_its_stem():
    with pytest.raises(ConfigError, match=r"did you mean 'configs/pretrain/base.py'\?"):
        read_config("base", {}, PretrainConfig, "pretrain")


def test_a_preset_takes_the_place_of_the_files_model():
    overrides = {"model.preset": "tiny", "model.dropout_rate": 0.2, "model.flavour": "msr"}
    config = read_config(str(QUICKSTART), overrides, PretrainConfig, "pretrain")
    assert config.model == preset("tiny", "msr", dropout_rate=0.2)
    assert config.train == read_config(str(QUICKSTART), {}, PretrainConfig, "pretrain").train
    # What fits the data and the machine stays as the file has it.
    large = QUICKSTART.with_name("large.py")
    config = read_config(str(large), {"model.preset": "base"}, PretrainConfig, "pretrain")
    kept = {"vocab_size": 32256, "dtype": "bfloat16", "remat": "full", "dropout_rate": 0.0}
    assert config.model == preset("base", **kept)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.preset": "bse"}, "must be one of tiny, small, base, large; did you mean 'base'?"),
        ({"model.preset": "base", "model.flavour": "x"}, "flavour = 'x': must be one of t5, msr"),
        ({"model.flavour": "msr"}, "model.flavour = 'msr': must come with --config.model.preset"),
        ({"preset": "base"}, "config.preset: no such setting; did you mean 'config.model.preset'?"),
    ],
)
def test_presets_that_are_none(overrides, message):
    with pytest.raises(ConfigError) as refused:
        read_config(str(QUICKSTART), overrides, PretrainConfig, "pretrain")
    assert message in str(refused.value)
