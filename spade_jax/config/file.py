"""Configuration files: Python that makes settings, which command lines override by their names.

Nothing here imports JAX or TensorFlow, so that wrong settings answer at once.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import re
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

from spade_jax.config import explain
from spade_jax.config.schema import (
    ConfigError,
    Presets,
    from_dict,
    nearest,
    require,
    require_choice,
    shorten,
    shown,
)

T = TypeVar("T")

# What configuration files import, by the names that it had.
MOVED = {
    "spade_jax.command_line": "spade_jax.config.file",
    "spade_jax.config.SSMConfig": "spade_jax.mixers.S4",
    "spade_jax.config.preset": "spade_jax.models.presets.preset",
}


# What other programs call our settings.
ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "epochs": "train.steps",
    "num_train_epochs": "train.steps",
    "max_steps": "train.steps",
    "num_train_steps": "train.steps",
    "bs": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.microbatches",
    "warmup": "optimizer.warmup_steps",
    "warmup_ratio": "optimizer.warmup_steps",
    "lr_scheduler_type": "optimizer.schedule",
    "max_grad_norm": "optimizer.clip_norm",
    "save_steps": "train.checkpoint_every",
    "eval_steps": "train.eval_every",
    "logging_steps": "train.log_every",
    "hidden_size": "model.d_model",
    "num_heads": "model.attention.num_heads",
    "dropout": "model.dropout_rate",
}


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """A dataclass as the `ConfigDict` that `get_config()` of a configuration file returns."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def read_config(file: str, overrides: Mapping[str, Any], config_class: type[T], program: str) -> T:
    """The configuration of a file, with settings overridden by their dotted names.

    Raises:
      ConfigError: a file or setting that does not exist, or what `config_class` rejects.
    """
    overrides = dict(overrides)
    settings = _load(Path(file), program)
    for name, presets in getattr(config_class, "PRESETS", {}).items():
        _take_preset(settings, name, presets, overrides)
    _check_names(config_class, overrides)
    return from_dict(config_class, _overridden(settings, overrides))


def _take_preset(
    settings: dict[str, Any], name: str, presets: Presets, overrides: dict[str, Any]
) -> None:
    """Replaces what a preset is for, if the overrides name one, and takes its name out of these."""
    size, flavour = (overrides.pop(f"{name}.{word}", None) for word in ("preset", "flavour"))
    if size is None:
        right = f"must come with --config.{name}.preset"
        require(flavour is None, f"{name}.flavour", flavour, right)
        return
    require_choice(f"{name}.preset", size, presets.names)
    before = settings.get(name) or {}
    kept = {key: before[key] for key in presets.kept if key in before}
    settings[name] = presets.make(size, **({} if flavour is None else {"flavour": flavour}), **kept)


def _check_names(config_class: type, names: Iterable[str]) -> None:
    """Raises ConfigError for a name that is a setting's in another branch, or what one is called
    elsewhere. What is left, `from_dict` answers."""
    known = [setting.name for setting in explain.settings(config_class)]
    for name in names:
        last = name.rpartition(".")[2]
        generic = re.sub(r"\.\d+(?=\.|$)", ".0", name)
        if generic in known or "mixers" in name:
            continue
        own = [k for k in known if "NAME" not in k]
        meant = [k for k in own if k.rpartition(".")[2] == last]
        meant = meant or [k for k in own if k == ELSEWHERE.get(last)]
        if meant:
            # Those of the same branch, if there are any.
            near = [k for k in meant if k.split(".")[0] == name.split(".")[0]] or meant
            said = " or ".join(repr(f"config.{k}") for k in dict.fromkeys(near))
            raise ConfigError(f"config.{name}: no such setting; did you mean {said}?")


def read_settings(file: str, overrides: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The same as nested dicts and lists, whose values nothing has looked at.

    Raises:
      ConfigError: a file or setting that does not exist, or a file that makes no settings.
    """
    return _overridden(_load(Path(file), program), overrides)


def _overridden(settings: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in overrides.items():
        _override(settings, name, value)
    return settings


def parse_overrides(rest: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """`--config.NAME=VALUE` or `--config.NAME VALUE`, with VALUE a Python literal or a string;
    `--config.NAME` alone is True.

    Raises:
      SystemExit: an argument of another form.
    """
    overrides = {}
    waiting = list(rest)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        if not name.startswith("--config."):
            parser.error(f"{name}: is neither --config.NAME=VALUE nor an option of this program")
        if not equals:
            alone = not waiting or waiting[0].startswith("--")
            value = "True" if alone else waiting.pop(0)
        literals = {"true": "True", "false": "False", "none": "None", "null": "None"}
        try:
            overrides[name.removeprefix("--config.")] = ast.literal_eval(
                literals.get(value.lower(), value)
            )
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            overrides[name.removeprefix("--config.")] = value
    return overrides


def _load(path: Path, program: str) -> dict[str, Any]:
    """What the file's `get_config` returns, as nested dicts and lists."""
    if not path.is_file():
        raise ConfigError(f"--config = {shown(str(path))}: no such file{_similar(path, program)}")
    where = f"--config = {shown(str(path))}"
    try:
        settings = _plain(_get_config(path, where)())
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        frames = [*traceback.walk_tb(error.__traceback__)]
        own = [(frame, line) for frame, line in frames if frame.f_code.co_filename == str(path)]
        lines = [line for _, line in own]
        if isinstance(error, SyntaxError) and not lines:
            at = f"line {error.lineno}: " if error.lineno else ""
            raise ConfigError(f"{where}: must be a Python file ({at}{error.msg})") from None
        at = f"line {lines[-1]}" if lines else "it"
        if own and (moved := _moved(error, own[-1][0].f_globals)) is not None:
            raise ConfigError(f"{where}: {at} {moved}") from None
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{where}: must make a configuration, but {at} raises {type(error).__name__}"
            + (f" ({shorten(reason)})" if reason else "")
        ) from None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{where}: get_config() must return a ConfigDict or a dict, not "
            f"{type(settings).__name__}; to_config_dict() makes one of a dataclass"
        )
    return settings


def _similar(path: Path, program: str) -> str:
    """The configuration file that a path may mean, or what there is."""
    folders = [Path("configs") / program]
    if path.parent.is_dir() and path.parent != Path():
        folders.insert(0, path.parent)
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    known = {file.stem: str(file) for file in reversed(files) if file.name != "__init__.py"}
    close = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {known[close[0]]!r}?"
    return f"; known: {', '.join(sorted(known.values()))}" if known else ""


def _moved(error: BaseException, names: Mapping[str, Any]) -> str | None:
    """What a line uses that has another name now, and which; None if that is not what is wrong.

    Args:
      names: global ones of the file.
    """
    if isinstance(error, ModuleNotFoundError):
        old = str(error.name)
        now = MOVED.get(old)
    elif found := re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error)):
        old = f"{found[2]}.{found[1]}"
        now = MOVED.get(old)
    elif found := re.match(r"(\w+)\.__init__\(\) got an .*argument '(\w+)'", str(error)):
        old = f"{found[1]}.{found[2]}"
        now = getattr(names.get(found[1]), "MOVED", {}).get(found[2])
    else:
        return None
    return None if now is None else f"uses {old}, which is called {now} now"


def _get_config(path: Path, where: str) -> Callable[[], Any]:
    if b"\0" in path.read_bytes():  # Pythons differ in what they raise.
        raise ConfigError(f"{where}: must be a Python file (source code cannot contain null bytes)")
    get_config = runpy.run_path(str(path)).get("get_config")
    if not callable(get_config):
        raise ConfigError(f"{where}: must define get_config(), which returns the configuration")
    try:
        inspect.signature(get_config).bind()
    except TypeError:
        raise ConfigError(f"{where}: get_config() must need no arguments") from None
    return get_config


def _plain(value: Any) -> Any:
    """Nested dicts and lists, whose entries can be overridden."""
    if isinstance(value, ml_collections.ConfigDict | Mapping):
        return {name: _plain(value[name]) for name in value}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _override(settings: Any, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    where = "config"
    for part in parents:
        key = _key(settings, part, where)
        # What no dataclass knows, it says itself: the nearest name, or the one that it has now.
        settings = settings.setdefault(key, {}) if isinstance(settings, dict) else settings[key]
        where = f"{where}.{part}"
    settings[_key(settings, last, where)] = value


def _key(settings: Any, part: str, where: str) -> Any:
    """The key of a dict, or the index of a list, that a part of a name stands for."""
    if not isinstance(settings, dict | list):
        raise ConfigError(f"{where} = {shown(settings)}: has no setting {shown(part)} inside")
    known = {
        str(key): key for key in (settings if isinstance(settings, dict) else range(len(settings)))
    }
    if part not in known and isinstance(settings, dict):
        return part
    if part not in known:
        raise ConfigError(f"{where}.{shorten(part)}: no such setting{nearest(part, known)}")
    return known[part]
