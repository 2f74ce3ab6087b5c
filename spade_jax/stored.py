"""The one reader of our own JSON files: what a run, a checkpoint or a cache says of itself.

A shape says what must be there:

    str, bool, dict, list         a value of that kind
    int                           a count: from 0 to 2**63 - 1
    float                         a number, infinite ones and NaN among them
    "train", None                 this value
    ("train", "eval")             one of these shapes
    [shape]                       a list of such
    {"step": shape, "best?": shape, str: shape}
                                  an object with these keys, of which those with a question mark may
                                  be absent; all others, whose values must be of the shape of `str`
                                  if that is there
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shape = Any


def read_json(
    path: Path, shape: Shape, *, advice: str, error: type[Exception], name: str | None = None
) -> Any:
    """The value in a file, or None where there is no such file.

    Args:
      advice: what to do about a damaged one, for the message.
      error: what is raised.
      name: what the message calls the file; None is its path.

    Raises:
      error: the file cannot be read, or is not of that shape, in one sentence.
    """
    name = str(path) if name is None else name
    data = _read(path, name, advice, error)
    return None if data is None else _parse(data, shape, name, advice, error)


def read_json_lines(
    path: Path, shape: Shape, *, advice: str, error: type[Exception]
) -> list[dict[str, Any]]:
    """The same of each line, without what an interruption left of the last one."""
    lines = (_read(path, str(path), advice, error) or b"").split(b"\n")[:-1]
    return [
        _parse(line, shape, f"{path}: line {number}", advice, error)
        for number, line in enumerate(lines, start=1)
    ]


def _read(path: Path, name: str, advice: str, error: type[Exception]) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as reason:
        raise error(f"{name}: cannot be read ({reason.strerror}); {advice}") from None


def _parse(data: bytes, shape: Shape, name: str, advice: str, error: type[Exception]) -> Any:
    try:
        value = json.loads(data.decode())
        problem = _mismatch(value, shape)
    except (ValueError, RecursionError):
        problem = "no JSON"
    if problem is not None:
        raise error(f"{name}: is damaged ({problem}); {advice}")
    return value


def _mismatch(value: Any, shape: Shape, name: str = "") -> str | None:
    """How a value differs from a shape, or None."""
    if isinstance(shape, Mapping):
        return _mismatch_inside(value, shape, name)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name or 'it'} is no list"
        return next(filter(None, (_mismatch(v, shape[0], f"{name}[]") for v in value)), None)
    if isinstance(shape, tuple):
        fits = any(_mismatch(value, one) is None for one in shape)
    elif shape is int:
        fits = type(value) is int and 0 <= value < 2**63
    elif shape is float:
        fits = type(value) is float or (type(value) is int and abs(value) < 2**63)
    elif isinstance(shape, type):
        fits = type(value) is shape
    else:
        fits = value == shape
    return None if fits else f"{name or 'it'} is {str(value)[:40]!r}"


def _mismatch_inside(value: Any, shape: Mapping[Any, Shape], name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name or 'it'} is no object"
    named = {str(key).removesuffix("?"): of for key, of in shape.items() if key is not str}
    prefix = f"{name}." if name else ""
    for key in shape:
        if key is not str and not key.endswith("?") and key not in value:
            return f"{prefix}{key} is missing"
    for key, part in value.items():
        expected = named.get(key, shape.get(str))
        if expected is not None and (problem := _mismatch(part, expected, f"{prefix}{key}")):
            return problem
    return None
