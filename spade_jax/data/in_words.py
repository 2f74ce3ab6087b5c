"""What sets of data are like, in words: how long sequences are, and what length would hold them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from spade_jax.config import MAX_LENGTH

# More sequences cut than this share are worth a word of advice, which holds all but this share.
_MAY_BE_CUT = 0.05
# That are named.
_CLASSES = 10


def percentile(lengths: Sequence[int], share: float) -> int:
    """The smallest of some lengths that holds at least this share of the sequences."""
    return int(np.percentile(lengths, 100 * share, method="inverted_cdf"))


def describe_lengths(lengths: Sequence[int]) -> str:
    """Percentiles, such as "p50 8,000, p95 11,200, p99 12,160, longest 13,021"."""
    if not len(lengths):
        return "none"
    named = [f"p{100 * share:.0f} {percentile(lengths, share):,}" for share in (0.5, 0.95, 0.99)]
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
    if cut > _MAY_BE_CUT * len(lengths):
        held = percentile(lengths, 1 - _MAY_BE_CUT)
        if (better := _rounded(held)) > length:
            many = f"all {cut:,} {what}" if cut == len(lengths) else f"{cut:,} {what}"
            return (
                f"{many} are cut at {length:,} tokens: p95 is {held:,}; {setting}={better} would "
                f"hold {1 - _MAY_BE_CUT:.0%}"
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
