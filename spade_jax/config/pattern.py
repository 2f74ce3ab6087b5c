"""Patterns of layers: `"s4+window:concat, 11*window"`, bottom first.

pattern   item, item, …
item      [REPEAT*] layer    or    [REPEAT*] (pattern)
layer     MIXER              one mixer alone
          MIXER+MIXER[:HOW]  two, put together: concat (unless said otherwise), add, stack or
                             residual
          …:no_ff            a layer without feed-forward
"""

import dataclasses
import re
import typing
from typing import Literal

from spade_jax.config.schema import ConfigError, require, require_choice, shorten

MAX_LAYERS = 1024

Combine = Literal["concat", "add", "stack", "residual"]
_NO_FEED_FORWARD = "no_ff"


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer.

    Attributes:
      mixers: names of its mixer, or of the two that it combines: in SPADE the global one, then the
        local one.
      combine: how two meet: Linear([first; second]) ("concat"), their weighted sum ("add"),
        second(first(x)) ("stack"), or second + Linear(first), which begins as the second alone
        ("residual"); None for one.
      feed_forward: whether a feed-forward block follows.
    """

    mixers: tuple[str, ...]
    combine: Combine | None = None
    feed_forward: bool = True


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers that follow one another, `repeat` times over."""

    layers: tuple[LayerSpec, ...]
    repeat: int = 1


def parse_pattern(pattern: str, where: str = "layers") -> tuple[Group, ...]:
    """Reads a pattern of layers.

    Groups within groups are written out; a group that is not repeated is its layers.

    Raises:
      ConfigError: what is no pattern, or has too many layers.
    """
    return _Reader(pattern, where).read()


class _Reader:
    """Goes through the words of a pattern from left to right."""

    def __init__(self, pattern: str, where: str):
        self._pattern, self._where = pattern, where
        self._words = re.findall(r"[(),]|[0-9]+\*|[^(),*]+|\*", "".join(pattern.split()))
        self._depth = 0

    def read(self) -> tuple[Group, ...]:
        groups = self._items()
        if self._words:
            raise self._wrong(f"{self._words[0]!r} is not expected there")
        return groups

    def _items(self) -> tuple[Group, ...]:
        """Up to the end, or to what closes a group."""
        groups = [*self._item()]
        while self._words and self._words[0] == ",":
            self._words.pop(0)
            groups += self._item()
            self._check_size(groups)
        return tuple(groups)

    def _item(self) -> tuple[Group, ...]:
        repeat = 1
        if self._words and re.fullmatch(r"[0-9]+\*", self._words[0]):
            digits = self._words.pop(0)[:-1]
            # Of more digits than int() takes, it need not be known exactly.
            repeat = int(digits) if len(digits) < 10 else MAX_LAYERS + 1
            require(repeat > 0, self._where, self._pattern, "every repeat must be at least 1")
        if not self._words:
            raise self._wrong("a layer is missing at its end")
        word = self._words.pop(0)
        if word != "(":
            groups = (Group((self._layer(word),), repeat),)
            self._check_size(groups)
            return groups
        self._depth += 1
        require(self._depth <= 16, self._where, self._pattern, "has too many groups in groups")
        inner = self._items()
        if not self._words or self._words.pop(0) != ")":
            raise self._wrong("a group is not closed")
        self._depth -= 1
        if repeat == 1:
            return inner
        layers = tuple(layer for group in inner for layer in group.layers * group.repeat)
        groups = (Group(layers, repeat),)
        self._check_size(groups)
        return groups

    def _layer(self, word: str) -> LayerSpec:
        names, *options = word.split(":")
        mixers = tuple(names.split("+"))
        if len(mixers) > 2 or not all(re.fullmatch(r"[\w-]+", name) for name in mixers):
            raise self._wrong(f"{shorten(repr(word))} is no layer")
        combine: Combine | None = "concat" if len(mixers) == 2 else None
        feed_forward = True
        for option in options:
            require_choice(self._where, option, (*typing.get_args(Combine), _NO_FEED_FORWARD))
            if option == _NO_FEED_FORWARD:
                feed_forward = False
                continue
            if len(mixers) == 1:
                raise self._wrong(f"{word!r} combines, but has one mixer only")
            combine = option  # type: ignore[assignment]
        return LayerSpec(mixers, combine, feed_forward)

    def _check_size(self, groups: typing.Sequence[Group]) -> None:
        require(
            count_layers(groups) <= MAX_LAYERS,
            self._where,
            self._pattern,
            f"must be at most {MAX_LAYERS} layers in all",
        )

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self._where} = {shorten(repr(self._pattern))}: {what}; must be of the form "
            "[REPEAT*]MIXER[+MIXER[:COMBINE]], such as 's4+window:concat, 11*window'"
        )


def count_layers(groups: typing.Sequence[Group]) -> int:
    return sum(len(group.layers) * group.repeat for group in groups)
