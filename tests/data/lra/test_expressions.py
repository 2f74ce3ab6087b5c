"""Expressions of ListOps: what they are worth, and what they are like."""

import collections
import statistics

import numpy as np
import pytest

from spade_jax.config import ConfigError
from spade_jax.data.lra.expressions import (
    OPERATORS,
    ExpressionConfig,
    draw_expressions,
    median,
    sum_modulo,
)


def value_of(tokens: collections.deque) -> int:
    """What a string of tokens is worth, evaluated from its front; reads no parentheses."""
    token = tokens.popleft()
    if token.isdecimal():
        return int(token)
    arguments = []
    while tokens[0] != "]":
        arguments.append(value_of(tokens))
    tokens.popleft()
    assert len(arguments) >= 2
    if token == "[MIN":
        return sorted(arguments)[0]
    if token == "[MAX":
        return sorted(arguments)[-1]
    if token == "[MED":
        return int(statistics.median(arguments))
    assert token == "[SM"
    return int(str(sum(arguments))[-1])


def depth_of(tokens: list[str]) -> int:
    """The most levels: a digit within n operators is on level n + 1."""
    deepest = level = 1
    for token in tokens:
        level += {"[": 1, "]": -1}.get(token[0], 0)
        deepest = max(deepest, level)
    return deepest


@pytest.fixture(scope="module")
def drawn():
    """Some 490 of the published kind."""
    return [found for block in range(3) for found in draw_expressions(block, CONFIG, 2000)]


CONFIG = ExpressionConfig(seed=1)


def test_medians_are_rounded_down_and_sums_taken_by_ten():
    assert median([3, 4]) == 3
    assert median([1, 9, 2, 4]) == 3
    assert median([7, 1, 5]) == 5
    assert sum_modulo([9, 9, 3]) == 1


def test_every_value_is_that_of_the_tokens(drawn):
    for found in drawn:
        tokens = [word for word in found.source.split() if word not in "()"]
        assert len(tokens) == found.length
        assert depth_of(tokens) == found.depth <= 10
        assert found.counts == tuple(tokens.count(name) for name in OPERATORS)
        rest = collections.deque(tokens)
        assert value_of(rest) == found.value
        assert not rest


def test_parentheses_apply_one_argument_at_a_time(drawn):
    """Each pair has two things in it, as the published files have it."""
    for found in drawn[:50]:
        stack: list[list[int]] = [[]]
        for word in found.source.split():
            if word == "(":
                stack.append([])
            elif word == ")":
                assert len(stack.pop()) == 2
                stack[-1].append(0)
            else:
                stack[-1].append(0)
        assert len(stack) == 1
    short = ExpressionConfig(3, 6, depth=2, operators=1.0, arguments=2)
    assert draw_expressions(0, short, 1)[0].source.startswith("( ( ( [")


def test_they_are_of_the_published_kind(drawn):
    """Within some four standard errors of what the published procedure gives."""
    lengths = np.array([found.length for found in drawn])
    assert 430 <= len(drawn) <= 555  # 1 of 12.2 attempts.
    assert lengths.min() > 500
    assert lengths.max() < 2000
    assert abs(lengths.mean() - 1033) < 75
    assert abs(np.median(lengths) - 944) < 90
    assert {found.depth for found in drawn} == {10}
    counts = np.sum([found.counts for found in drawn], axis=0)
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.01)
    assert abs(counts.sum() / len(drawn) - 147) < 12
    values = np.bincount([found.value for found in drawn], minlength=10) / len(drawn)
    published = [0.171, 0.090, 0.061, 0.077, 0.089, 0.093, 0.076, 0.082, 0.088, 0.173]
    assert np.abs(values - published).max() < 0.07


def test_blocks_are_functions_of_their_number_and_the_seed(drawn):
    again = draw_expressions(0, CONFIG, 2000)
    assert again == drawn[: len(again)]
    sources = {found.source for found in again}
    for other in (draw_expressions(1, CONFIG, 300), draw_expressions(0, ExpressionConfig(), 300)):
        assert other
        assert sources.isdisjoint(found.source for found in other)


def test_settings():
    config = ExpressionConfig(shortest=5, longest=20, depth=3, arguments=3, operators=0.8)
    found = draw_expressions(0, config, 200)
    assert {f.depth for f in found} <= {2, 3}
    assert len(found) > 20
    assert {len(f.source.split()) > f.length for f in found} == {True}
    assert min(f.length for f in found) >= 5
    assert max(f.length for f in found) <= 20
    with pytest.raises(ConfigError, match="--shortest = 9: must be at most --longest = 8"):
        ExpressionConfig(shortest=9, longest=8)
