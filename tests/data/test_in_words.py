"""Lengths and classes in words, and the length that is advised."""

import pytest

from spade_jax.data.in_words import advise_length, describe_classes, describe_lengths


def test_lengths_are_percentiles_that_occur():
    assert describe_lengths([*range(1, 101)]) == "p50 50, p95 95, p99 99, longest 100"
    assert describe_lengths([7, 3000]) == "p50 7, p95 3,000, p99 3,000, longest 3,000"
    assert describe_lengths([]) == "none"
    counts = {f"class{i}": i for i in range(12)}
    assert describe_classes(counts).endswith("class8 8, class9 9 and 2 more classes")


@pytest.mark.parametrize(
    ("lengths", "length", "advice"),
    [
        (
            [11_200] * 180,
            4096,
            "all 180 inputs are cut at 4,096 tokens: p95 is 11,200; task.input_length=11264 would "
            "hold 95%",
        ),
        (
            [*range(1, 101)],
            94,
            "6 inputs are cut at 94 tokens: p95 is 95; task.input_length=96 would hold 95%",
        ),
        ([*range(1, 101)], 95, None),
        (
            [3, 40],
            96,
            "the longest of the inputs has 40 of 96 tokens; task.input_length=48 would hold all, "
            "at less cost",
        ),
        ([3, 49], 96, None),
        ([], 96, None),
    ],
)
def test_a_length_is_advised_where_it_is_plain(lengths, length, advice):
    assert advise_length(lengths, "inputs", "task.input_length", length) == advice


def test_of_a_part_none_is_called_the_longest():
    assert advise_length([3, 40], "inputs", "task.input_length", 96, whole=False) is None
