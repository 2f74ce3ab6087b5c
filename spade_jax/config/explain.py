"""Every setting of a configuration with type, default, range and sentence, from its dataclasses.

A setting's sentence stands in the `Attributes:` of its class. Names are those of command lines:
`data.sources.0.train` is of each entry of a tuple, by its number, and `model.mixers.NAME.radius` of
what has names of one's own.
"""

import dataclasses
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from spade_jax.config.schema import (
    ConfigError,
    Kinds,
    Range,
    did_you_mean,
    field_hints,
    require_pattern,
    shown,
)


class Setting(NamedTuple):
    """A setting.

    Attributes:
      name: with dots, as command lines have it.
      type: what it can be, in words, with bounds.
      default: as Python has it; "" where it must be set.
      words: what it is.
      kinds: of a family of kinds those that have it; empty: all.
    """

    name: str
    type: str
    default: str
    words: str
    kinds: tuple[str, ...] = ()


def settings(config_class: type, prefix: str = "") -> list[Setting]:
    """The settings of a dataclass, and of those inside it.

    Args:
      prefix: what comes before their names.
    """
    return _of_kinds(_variants(config_class), prefix)


def _of_kinds(variants: Mapping[str, type], prefix: str) -> list[Setting]:
    """The settings of dataclasses of which there is one, by kind."""
    found: dict[Setting, list[str]] = {}
    for kind, variant in variants.items():
        for setting in _own(variant, prefix):
            found.setdefault(setting, []).append(kind)
    return [
        setting if len(kinds) == len(variants) else setting._replace(kinds=(*kinds, *setting.kinds))
        for setting, kinds in found.items()
    ]


def matching(config_class: type, pattern: str) -> list[Setting]:
    """Those whose names, or words, a regular expression is found in.

    Raises:
      ConfigError: it is none, or is found in none.
    """
    require_pattern("--help-config", pattern)
    every = settings(config_class)
    found = [s for s in every if re.search(pattern, s.name)]
    found = found or [s for s in every if re.search(pattern, s.words, re.IGNORECASE)]
    if not found:
        names = [s.name for s in every]
        raise ConfigError(
            f"--help-config = {shown(pattern)}: is in the name of no setting"
            f"{did_you_mean(pattern, names) or did_you_mean(pattern, _last(names))}"
        )
    return found


def _last(names: list[str]) -> list[str]:
    """The last parts of dotted names."""
    return [name.rpartition(".")[2] for name in names]


def as_text(found: Iterable[Setting], width: int = 100) -> str:
    """Settings for a terminal."""
    lines = []
    for setting in found:
        default = f"; default {setting.default}" if setting.default else "; must be set"
        of = f" (of {', '.join(setting.kinds)})" if setting.kinds else ""
        lines.append(setting.name + of)
        for words in filter(None, (setting.type + default, setting.words)):
            lines += textwrap.wrap(words, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _variants(config_class: type) -> dict[str, type]:
    """The dataclasses that one stands for, by kind."""
    if issubclass(config_class, Kinds) and not config_class.kind:
        return dict(config_class.KINDS)
    return {getattr(config_class, "kind", ""): config_class}


def _own(config_class: type, prefix: str) -> Iterator[Setting]:
    hints = field_hints(config_class)
    words = _sentences(config_class)
    for field in dataclasses.fields(config_class):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if field.name == "kind" and issubclass(config_class, Kinds):
            known = ", ".join(config_class.KINDS)
            default = repr(config_class.DEFAULT) if config_class.DEFAULT else ""
            yield Setting(name, f"one of {known}", default, config_class.FAMILY)
            continue
        if not field.init:
            continue
        yield Setting(name, _words_of(hint), _default(field), words.get(field.name, ""))
        if (presets := getattr(config_class, "PRESETS", {}).get(field.name)) is not None:
            known = f"one of {', '.join(presets.names)}, or None"
            yield Setting(f"{name}.preset", known, "None", presets.words)
        inside: dict[str, dict[str, type]] = {}
        for inner, place in _inside(hint):
            inside.setdefault(place, {}).update(_variants(inner))
        for place, variants in inside.items():
            yield from _of_kinds(variants, f"{name}.{place}")


def _inside(hint: Any) -> Iterator[tuple[type, str]]:
    """The dataclasses in a type, each with what stands for one's place."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint, ""
    elif origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        for inner, _ in _inside(options[1]):
            yield inner, "NAME."
    elif origin is tuple:
        for inner, _ in _inside(options[0]):
            yield inner, "0."
    elif origin in (types.UnionType, typing.Union):
        for option in options:
            yield from _inside(option)


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return ""
    holds_settings = dataclasses.is_dataclass(value) or (
        isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value))
    )
    return "as below" if holds_settings else repr(value)


def _words_of(hint: Any) -> str:
    """A type, as people say it."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, *more = options
        return f"{kind.__name__} {_range(next(m for m in more if isinstance(m, Range)))}"
    if origin is Literal:
        return f"one of {', '.join(map(str, options))}"
    if origin in (types.UnionType, typing.Union):
        rest = [_words_of(option) for option in options if option is not type(None)]
        none = [limits.none for limits in _ranges(hint) if limits.none]
        if len(rest) < len(options):
            rest.append(f"None {none[0]}" if none else "None")
        return ", or ".join(dict.fromkeys(rest))
    if origin is tuple:
        if len(options) == 2 and options[1] is ...:
            return f"tuple of {_words_of(options[0])}"
        return f"({', '.join(map(_words_of, options))})"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "settings"
    if origin is Mapping:
        return "settings by names of one's own"
    names = {bool: "True or False", str: "text"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _ranges(hint: Any) -> Iterator[Range]:
    for option in typing.get_args(hint):
        if isinstance(option, Range):
            yield option
        yield from _ranges(option)


def _range(limits: Range) -> str:
    low = f"{'above' if limits.above else 'from'} {limits.low}"
    return f"{low} {'below' if limits.below else 'to'} {limits.high}"


@functools.cache
def _sentences(config_class: type) -> dict[str, str]:
    """What the docstrings of a dataclass, and of those it is made from, say of each field."""
    found: dict[str, str] = {}
    for one in reversed(config_class.__mro__):
        # That of the class itself: a dataclass without one is given its signature.
        text = inspect.cleandoc(one.__dict__.get("__doc__") or "")
        _, _, attributes = text.partition("Attributes:\n")
        for names, words in re.findall(
            r"^  ([\w, ]+): ((?:.*)(?:\n    .*)*)", attributes, re.MULTILINE
        ):
            for name in names.split(","):
                found[name.strip()] = " ".join(words.split())
    return found
