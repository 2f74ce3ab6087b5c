"""What people write on command lines, and environments in variables: numbers and paths, parsed here
alone, within bounds. Knows no framework."""

import argparse
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spade_jax.config.schema import (
    ConfigError,
    Range,
    field_hints,
    number_range,
    require,
    require_text,
    shown,
)


def parse_number(text: str, setting: str, kind: type, limits: Range) -> Any:
    """The int or float that a text is.

    Raises:
      ConfigError: it is none, or outside of its range.
    """
    try:
        value = kind(text)
    except ValueError:  # Also of more digits than Python takes.
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{setting} = {shown(text)}: must be {what}") from None
    limits.require(setting, value)
    return value


def parse_path(text: str, setting: str) -> Path:
    """The path that a text is.

    Raises:
      ConfigError: it is empty, which would be the current directory, or no file can be named so.
    """
    require(bool(text), setting, text, "must be a path")
    require_text(setting, text)
    return Path(text)


def whole_from_environment(
    name: str, low: int, high: int, default: int, environment: Mapping[str, str] = os.environ
) -> int:
    """A whole number of the environment, or the default where it is not set or empty.

    Raises:
      ConfigError: it is none, or out of bounds.
    """
    text = environment.get(name, "").strip()
    return parse_number(text, name, int, Range(low, high)) if text else default


def number(kind: type, limits: Range) -> Any:
    """The `action` of an option that is an int or a float within limits, or several."""
    return functools.partial(_Number, kind=kind, limits=limits)


def whole_number(low: int, high: int) -> Any:
    """The same of a whole number from `low` to `high`."""
    return number(int, Range(low, high))


def as_in(config_class: Any, field: str) -> Any:
    """The same of what a field of a configuration can be."""
    return number(*number_range(field_hints(config_class)[field]))


class _Number(argparse.Action):
    def __init__(self, *args: Any, kind: type, limits: Range, **more: Any):
        super().__init__(*args, **more)
        self._parse = functools.partial(
            parse_number, setting=self.option_strings[-1], kind=kind, limits=limits
        )

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        several = isinstance(values, list)
        setattr(
            namespace, self.dest, [*map(self._parse, values)] if several else self._parse(values)
        )


class PathOption(argparse.Action):
    """The `action` of an option that is a path."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, parse_path(values, self.option_strings[-1]))
