"""Settings as frozen dataclasses: their one form of error, their choices and ranges, how they are
read. Knows no model and no framework.

A number stands with its range: `steps: Annotated[int, Range(1, 10**9)]`. Every dataclass calls
`check_fields` first of all when it is made.
"""

import dataclasses
import difflib
import functools
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

T = TypeVar("T")

# Of a value in a message; half an ordinary screen.
_MOST_SHOWN = 600


class ConfigError(ValueError):
    """A setting that cannot be: the message names it, its value and what would be right."""


class RunError(RuntimeError):
    """A run that cannot go on: the message says where it stands and what to do."""


def shown(value: Any) -> str:
    """A value as messages have it: on one line that is not too long, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # Integers of too many digits, lists of too many levels, objects of others.
        return f"<{type(value).__name__} that is too large to show>"
    return shorten(" ".join(text.split()) if "\n" in text else text)


def shorten(text: str) -> str:
    """The text, or the ends of one that is too long for a message."""
    half = _MOST_SHOWN // 2
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]} … {text[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, or the whole list if none is close."""
    known = sorted(known)
    return did_you_mean(name, known) or f"; known: {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, "" if none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def require(condition: bool, setting: str, value: Any, right: str) -> None:
    """Raises ConfigError in the one form of all our messages unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{setting} = {shown(value)}: {right}")


def require_choice(setting: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest choice, unless `value` is one of `choices`."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(
            f"{setting} = {shown(value)}: must be one of {', '.join(choices)}"
            + (did_you_mean(value, choices) if isinstance(value, str) else "")
        )


def require_pattern(setting: str, pattern: str) -> None:
    """Raises ConfigError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{setting} = {shown(pattern)}: must be a regular expression ({error})"
        ) from None


def require_text(setting: str, value: str) -> None:
    """Raises ConfigError for what neither files nor their names can hold."""
    try:
        value.encode("utf-8")
        text = "\0" not in value
    except UnicodeEncodeError:
        text = False
    require(text, setting, value, "must be text in UTF-8 without NUL")


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting can be, from `low` to `high`; infinities and nan never are.

    Attributes:
      none: what None stands for, where it can be None as well, such as "for all tokens".
      above, below: `low` or `high` itself is outside.
    """

    low: float
    high: float
    none: str = ""
    above: bool = False
    below: bool = False

    def wrong(self, value: Any) -> str:
        """What a value must be that lies outside, such as "at least 1"; "" for one inside."""
        bounds = []
        if not (value > self.low if self.above else value >= self.low):
            bounds.append(f"{'above' if self.above else 'at least'} {self.low}")
        if not (value < self.high if self.below else value <= self.high):
            bounds.append(f"{'below' if self.below else 'at most'} {self.high}")
        return " and ".join(bounds)

    def require(self, setting: str, value: Any, or_none: bool = False) -> None:
        """Raises ConfigError unless `value` is inside."""
        right = self.wrong(value)
        if or_none:
            right += f", or None {self.none}".rstrip()
        require(not self.wrong(value), setting, value, f"must be {right}")


# What counters of 32 bits hold, and seeds of JAX, NumPy and TensorFlow alike.
MAX_COUNT = 2**31 - 1
Count = Annotated[int, Range(1, MAX_COUNT)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclasses.dataclass(frozen=True)
class Kinds:
    """Settings of which there are several kinds: a family of dataclasses, known by name.

    `class MixerConfig(Kinds, family="kind of mixer")` begins a family; `class Window(MixerConfig,
    kind="window")` is one of its kinds, which `from_dict` makes of settings whose `kind` it is.

    Attributes:
      kind: the kind's name.
    """

    FAMILY: ClassVar[str] = ""
    KINDS: ClassVar[dict[str, type[Any]]] = {}
    # Of settings that name no kind; "": they must.
    DEFAULT: ClassVar[str] = ""

    kind: str = dataclasses.field(init=False, default="")

    def __init_subclass__(
        cls, family: str = "", kind: str = "", default: str = "", **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        if family:
            cls.FAMILY, cls.KINDS, cls.DEFAULT = family, {}, default
        if kind:
            cls.kind = kind
            cls.KINDS[kind] = cls

    @classmethod
    def variant(cls, values: Mapping[str, Any], where: str) -> type[Any]:
        """The class whose settings these are: what `from_dict` makes of them.

        Raises:
          ConfigError: no kind, or an unknown one.
        """
        kind = values.get("kind", cls.kind or cls.DEFAULT or None)
        if not isinstance(kind, str) or kind not in cls.KINDS:
            raise ConfigError(
                f"{where}.kind = {shown(kind)}: must be a {cls.FAMILY}"
                f"{nearest(str(kind), cls.KINDS)}"
            )
        return cls.KINDS[kind]


class Presets(NamedTuple):
    """Settings that have a name, for a command line to choose.

    A dataclass of settings has them as `PRESETS`, by the field that they are for.

    Attributes:
      names: those of the sizes.
      make: the settings of one, as nested dicts: of the size's name, and more by keywords.
      kept: what stays as a configuration file has it where a command line chooses another.
      words: what they are, in a sentence.
    """

    names: tuple[str, ...]
    make: Callable[..., dict[str, Any]]
    kept: tuple[str, ...]
    words: str


@functools.cache
def field_hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their ranges."""
    return typing.get_type_hints(cls, include_extras=True)


def number_range(hint: Any) -> tuple[type, Range]:
    """The number that a field of this type is, and its range.

    Raises:
      TypeError: it is no number with a range.
    """
    for option in (hint, *typing.get_args(hint)):
        if typing.get_origin(option) is Annotated:
            kind, *more = typing.get_args(option)
            for limits in more:
                if isinstance(limits, Range):
                    return kind, limits
    raise TypeError(f"{hint} is no number with a Range")


def check_fields(config: Any, prefix: str) -> None:
    """Checks all choices, numbers and texts of a dataclass, also those in tuples.

    Args:
      prefix: what comes before the names of its fields in messages, such as "model.ssm.".

    Raises:
      ConfigError: a value that is none of the choices, outside of its range, or no text.
    """
    for name, hint in field_hints(type(config)).items():  # type: ignore[arg-type]
        _check(hint, getattr(config, name), f"{prefix}{name}")


def _check(hint: Any, value: Any, setting: str, or_none: bool = False) -> None:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, limits = number_range(hint)
        wanted = numbers.Integral if kind is int else numbers.Real
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise _wrong_type(setting, value, kind)
        limits.require(setting, value, or_none)
    elif origin is Literal:
        require_choice(setting, value, options)
    elif origin in (types.UnionType, typing.Union):
        rest = [option for option in options if option is not type(None)]
        if value is None and len(rest) < len(options):
            return
        for option in rest:
            if len(rest) == 1 or isinstance(value, typing.get_origin(option) or option):
                _check(option, value, setting, or_none=len(rest) < len(options))
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise _wrong_type(setting, value, tuple)
        for i, (item, entry) in enumerate(zip(_items(options, value, setting), value)):
            _check(item, entry, f"{setting}[{i}]")
    elif isinstance(value, str):
        require_text(setting, value)


def _items(options: tuple[Any, ...], value: Any, setting: str) -> list[Any]:
    """The types of the entries of a tuple."""
    if len(options) == 2 and options[1] is ...:
        return [options[0]] * len(value)
    require(len(options) == len(value), setting, value, f"must have {len(options)} entries")
    return list(options)


def _wrong_type(setting: str, value: Any, expected: Any) -> ConfigError:
    name = getattr(expected, "__name__", expected)
    return ConfigError(f"{setting} = {shown(value)}: must be {name}, not {type(value).__name__}")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Builds the dataclass `cls` from nested mappings, such as an `ml_collections.ConfigDict`.

    A class of which there are several kinds has a class method `variant(values, where)`, which
    gives the one that is meant; `MOVED` maps names that settings had to those that they have.

    Raises:
      ConfigError: an unknown name (with the nearest known one), or what the dataclass rejects.
    """
    require(hasattr(values, "items"), where, values, "must be settings by their names")
    if (variant := getattr(cls, "variant", None)) is not None:
        cls = variant(values, where)
    moved: Mapping[str, str] = getattr(cls, "MOVED", {})
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name in moved:
            raise ConfigError(f"{where}.{name}: is called {moved[name]} now")
        if name not in fields:
            name = shorten(str(name))
            raise ConfigError(f"{where}.{name}: no such setting{nearest(name, fields)}")
        if fields[name].init:
            arguments[name] = _coerce(hints[name], value, f"{where}.{name}")
    missing = [
        f.name
        for f in fields.values()
        if f.init
        and f.name not in arguments
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}.{missing[0]}: is not set and has no default")
    return cls(**arguments)


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` says; integers pass for floats, lists for tuples, nothing else bends."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and hasattr(value, "items"):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        # What is not None is no wrong None: the message is about what it could be.
        for option in (o for o in options if o is not type(None)):
            try:
                return _coerce(option, value, where)
            except ConfigError as error:
                if dataclasses.is_dataclass(option):
                    raise
                last = error
        raise last
    if origin is Mapping and hasattr(value, "items"):
        return {
            str(name): _coerce(options[1], item, f"{where}.{name}") for name, item in value.items()
        }
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(
            _coerce(item, v, f"{where}[{i}]")
            for i, (item, v) in enumerate(zip(_items(options, value, where), value))
        )
    if origin is tuple and options == (str, ...) and isinstance(value, str) and value:
        return (value,)  # One name is a list of one.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value  # Beyond every range, which says so.
    expected = origin or hint
    if expected is Literal or not isinstance(expected, type):
        return value
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise _wrong_type(where, value, expected)
    return value
