"""Files of ours as crashes, disks and people damage them: seeded, so always the same."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_VALUES = ([], {}, None, "x", -1, 0.5, True, 2**70, [[]], {"": None})


def damages(content: bytes, seed: int, values: int = 12) -> Iterator[bytes]:
    """The content truncated, flipped, replaced; of JSON, also without keys and with other values.

    Args:
      values: how many of the latter.
    """
    rng = random.Random(seed)
    yield from (b"", b"\0" * len(content), rng.randbytes(200), b"[]\n", b"{}\n", b"null\n", b"7\n")
    yield b"[" * 100_000 + b"\n"
    yield b'{"step": ' + b"9" * 5000 + b"}\n"
    for _ in range(2):
        yield content[: rng.randrange(len(content))]
    for _ in range(4):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
    lines = content.splitlines()
    try:
        parsed = [json.loads(line) for line in lines]
    except ValueError:
        try:
            lines, parsed = [content], [json.loads(content)]
        except ValueError:
            return
    for _ in range(values):
        other = copy.deepcopy(parsed)
        holder, key = rng.choice([*_places(other)])
        if isinstance(holder, dict) and rng.random() < 0.4:
            del holder[key]
        else:
            holder[key] = rng.choice(_VALUES)
        yield b"".join(json.dumps(value).encode() + b"\n" for value in other)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON value with each of its keys or indices."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def each_damage(path: Path, seed: int, read: Callable[[], Any], expected: type[Exception]) -> int:
    """Reads a file with each damage, and none: nothing but `expected` may be raised, and nothing on
    the disk may change. Returns how often it was raised."""
    content = path.read_bytes()
    refused = 0
    for data in (*damages(content, seed), None):
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        before = _tree(path.parent)
        refused += sentence(read, expected) is not None
        assert _tree(path.parent) == before
        path.write_bytes(content)
    return refused


def sentence(read: Callable[[], Any], expected: type[Exception]) -> str | None:
    """The one line of what `read` raises; None where it raises nothing."""
    try:
        read()
    except expected as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    assert len(message) < 1000
    return message


def _tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def seal(checkpoint: Path) -> None:
    """Makes a checkpoint's checksums those of the files that are there."""
    from spade_jax.runs.checkpoint_files import checksums

    path = checkpoint / "position" / "checksums.json"
    path.write_text(json.dumps(checksums(checkpoint)))
