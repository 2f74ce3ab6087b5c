"""What sets of data are like, in words: how long sequences are, and what length would hold them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from spade_jax.config import MAX_LENGTH

# Of a hundred sequences, those that a length should hold: where it does not, another is advised.
_HELD = 95
# That are named.
_CLASSES = 10


def percentile(lengths: Sequence[int], percent: int) -> int:
    """The smallest of some lengths that holds at least this many of a hundred sequences."""
    place = math.ceil(percent * len(lengths) / 100) - 1
    return int(np.partition(np.asarray(lengths), place)[place])


def describe_lengths(lengths: Sequence[int]) -> str:
    """Percentiles, such as "p50 8,000, p95 11,200, p99 12,160, longest 13,021"."""
    if not len(lengths):
        return "none"
    named = [f"p{percent} {percentile(lengths, percent):,}" for percent in (50, 95, 99)]
    return f"{', '.join(named)}, longest {max(lengths):,}"


def advise_length(
    lengths: Sequence[int], what: str, setting: str, length: int, *, whole: bool = True
) -> str | None:
    """What another length would be worth, where that is plain; or None.

    Args:
      lengths: tokens of whole sequences, what a model adds to them included.
      what: the sequences are, such as "inputs".
      length: of the setting: what is longer is cut.
      whole: whether these are all sequences that there are.
    """
    if not len(lengths):
        return None
    cut, longest = count_longer(lengths, length), max(lengths)
    if 100 * cut > (100 - _HELD) * len(lengths):
        held = percentile(lengths, _HELD)
        if (better := _rounded(held)) > length:
            many = f"all {cut:,} {what}" if cut == len(lengths) else f"{cut:,} {what}"
            return (
                f"{many} are cut at {length:,} tokens: p{_HELD} is {held:,}; {setting}={better} "
                f"would hold {_HELD}%"
            )
    elif whole and 2 * _rounded(longest) <= length:
        return (
            f"the longest of the {what} has {longest:,} of {length:,} tokens; "
            f"{setting}={_rounded(longest)} would hold all, at less cost"
        )
    return None


def count_longer(lengths: Sequence[int], length: int) -> int:
    return int(np.count_nonzero(np.asarray(lengths) > length))


def describe_classes(counts: Mapping[str, int]) -> str:
    """Rows of each class, such as "negative 90, positive 88"."""
    named = [f"{name} {count:,}" for name, count in [*counts.items()][:_CLASSES]]
    more = f" and {len(counts) - _CLASSES:,} more classes" if len(counts) > _CLASSES else ""
    return f"{', '.join(named)}{more}"


def _rounded(length: int) -> int:
    """A length, rounded up to one that hardware likes."""
    step = 128 if length > 128 else 16
    return min(math.ceil(length / step) * step, MAX_LENGTH)
