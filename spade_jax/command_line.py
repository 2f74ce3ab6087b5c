"""What command lines share: a configuration file, settings that override it, exit statuses.

Nothing here imports JAX or TensorFlow, so that `--help` and wrong settings answer at once.
"""

import argparse
import ast
import contextlib
import dataclasses
import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

from spade_jax.config import ConfigError, from_dict, nearest

T = TypeVar("T")


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """A dataclass as the `ConfigDict` that `get_config()` of a configuration file returns."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """For the imports of a program: where something goes wrong, one sentence says so, and the
    libraries' logs, then and later, would bury it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # TensorFlow writes to the file descriptor, whatever its log level, when it finds no GPU.
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def exit_status(program: Callable[[], int], file: str) -> int:
    """What `program` returns; or, with one line that says why, 2 for a wrong setting, 130 for
    Ctrl-C, else 1.

    Args:
      file: what an error of the operating system that names no file is about.
    """
    try:
        return program()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or file}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command starts again", file=sys.stderr)
        return 130


def read_config(file: str, overrides: Mapping[str, Any], config_class: type[T], program: str) -> T:
    """The configuration of a file, with settings overridden by their dotted names.

    Raises:
      ConfigError: a file or setting that does not exist, or what `config_class` rejects.
    """
    return from_dict(config_class, read_settings(file, overrides, program))


def read_settings(file: str, overrides: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The same as nested dicts and lists, whose values nothing has looked at.

    Raises:
      ConfigError: a file or setting that does not exist.
    """
    settings = _plain(_load(Path(file), program))
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
        except (ValueError, SyntaxError):
            overrides[name.removeprefix("--config.")] = value
    return overrides


def _load(path: Path, program: str) -> Any:
    """What the file's `get_config` returns."""
    if not path.is_file():
        directory = path.parent if path.parent.is_dir() else Path("configs") / program
        known = [str(p) for p in directory.glob("*.py") if p.name != "__init__.py"]
        raise ConfigError(f"--config = {str(path)!r}: no such file{nearest(str(path), known)}")
    try:
        module = runpy.run_path(str(path))
    except SyntaxError as error:
        raise ConfigError(
            f"--config = {str(path)!r}: must be a Python file (line {error.lineno}: {error.msg})"
        ) from None
    if "get_config" not in module:
        raise ConfigError(
            f"--config = {str(path)!r}: must define get_config(), which returns the configuration"
        )
    return module["get_config"]()


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
    for part in [*parents, last]:
        if isinstance(settings, dict):
            key: Any = part
            known = list(settings)
        elif isinstance(settings, list):
            key = int(part) if part.isdigit() else part
            known = [str(i) for i in range(len(settings))]
        else:
            raise ConfigError(f"{where} = {settings!r}: has no setting {part!r} inside")
        if part not in known:
            raise ConfigError(f"{where}.{part}: no such setting{nearest(part, known)}")
        where = f"{where}.{part}"
        if part is last:
            settings[key] = value
        else:
            settings = settings[key]
