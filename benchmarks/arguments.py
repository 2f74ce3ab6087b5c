"""Command-line arguments that the benchmarks share."""

import argparse

from spade_jax.config import MAX_COUNT, ConfigError, Range, shown
from spade_jax.parsing import parse_number


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    try:
        return parse_number(text, "", int, Range(1, MAX_COUNT))
    except ConfigError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not a positive integer of at most {MAX_COUNT}"
        ) from None
