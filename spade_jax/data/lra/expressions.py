"""ListOps: expressions of minima, maxima, medians and sums (Nangia and Bowman 2018), as the Long
Range Arena draws them: long, and ten deep."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

from spade_jax.config import Range, Seed, check_fields, require

END = "]"


def median(values: Sequence[int]) -> int:
    """The middle value; of an even number of them the mean of the middle two, rounded down."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


def sum_modulo(values: Sequence[int]) -> int:
    """The last digit of the sum."""
    return sum(values) % 10


OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": median,
    "[SM": sum_modulo,
}
_NAMES = tuple(OPERATORS)


@dataclasses.dataclass(frozen=True)
class ExpressionConfig:
    """How expressions are drawn; the defaults are the published ones.

    Attributes:
      shortest, longest: symbols of an expression, without parentheses.
      depth: levels of operators and digits.
      arguments: the most of an operator; each has at least 2.
      operators: probability that a place above the lowest level is an operator, not a digit.
      seed: of all of them.
    """

    shortest: Annotated[int, Range(1, 10**6)] = 501
    longest: Annotated[int, Range(1, 10**6)] = 1999
    depth: Annotated[int, Range(2, 1000)] = 10
    arguments: Annotated[int, Range(2, 1000)] = 10
    operators: Annotated[float, Range(0, 1, above=True)] = 0.25
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "--")
        require(
            self.shortest <= self.longest,
            "--shortest",
            self.shortest,
            f"must be at most --longest = {self.longest}",
        )


class Expression(NamedTuple):
    """One expression.

    Attributes:
      source: symbols and parentheses between spaces, as the published files have them: an operator
        is applied to one argument at a time, `( ( ( [MAX 3 ) 4 ) ] )`.
      value: 0 to 9.
      length: symbols, without parentheses.
      depth: levels.
      counts: how often each of `OPERATORS` occurs.
    """

    source: str
    value: int
    length: int
    depth: int
    counts: tuple[int, ...]


class _Open:
    """An operator whose arguments are still being drawn."""

    def __init__(self, name: str, arguments: int):
        self.name, self.arguments = name, arguments
        self.values: list[int] = []


def draw_expressions(block: int, config: ExpressionConfig, attempts: int) -> list[Expression]:
    """Those of so many attempts that are neither too short nor too long.

    Args:
      block: which of endlessly many; with the seed it decides all numbers that are drawn.
    """
    # Python promises that `random` of a seed stays what it is, and of no other method.
    draw = random.Random(f"{config.seed} {block}").random
    drawn = (_draw(draw, config) for _ in range(attempts))
    return [found for found in drawn if found is not None]


def _draw(draw: Callable[[], float], config: ExpressionConfig) -> Expression | None:
    """One attempt; None where the expression is too short, or as soon as it is too long."""
    words: list[str] = []
    counts = dict.fromkeys(_NAMES, 0)
    open_operators: list[_Open] = []
    length = deepest = 0
    while True:
        depth = len(open_operators) + 1
        deepest = max(deepest, depth)
        if depth < config.depth and draw() <= config.operators:
            arguments = 2 + int(draw() * (config.arguments - 1))
            name = _NAMES[int(draw() * len(_NAMES))]
            counts[name] += 1
            words += ["("] * (arguments + 1) + [name]
            open_operators.append(_Open(name, arguments))
            length += 2
        else:
            value = int(draw() * 10)
            words.append(str(value))
            length += 1
            value = _close(open_operators, value, words)
            if not open_operators:
                break
        if length > config.longest:
            return None
    if not config.shortest <= length <= config.longest:
        return None
    return Expression(" ".join(words), value, length, deepest, tuple(counts.values()))


def _close(open_operators: list[_Open], value: int, words: list[str]) -> int:
    """Hands a value to the operator around it, and that one's, if it has all, to the next one."""
    while open_operators:
        around = open_operators[-1]
        around.values.append(value)
        words.append(")")
        if len(around.values) < around.arguments:
            break
        words += [END, ")"]
        value = OPERATORS[around.name](around.values)
        open_operators.pop()
    return value
