"""Why an implementation cannot take queries and values as they are: what several of them refuse."""

from collections.abc import Mapping, Sequence
from typing import Any


def other_dtype(query: Any, dtypes: Sequence[str]) -> str | None:
    """Says that queries are of another dtype than those that are taken; None if they are not."""
    if query.dtype.name in dtypes:
        return None
    return f"takes {', '.join(dtypes)}, and this is {query.dtype}"


def other_weights(settings: Mapping[str, Any]) -> str | None:
    """Says that weights are no softmax; None if they are."""
    if (weights := settings.get("weights", "softmax")) == "softmax":
        return None
    return f"gives weights by softmax, and these are by {weights}"


def other_width(query: Any, value: Any) -> str | None:
    """Says that values [..., k] are not as wide as queries; None if they are."""
    size, width = query.shape[-1], value.shape[-1]
    if width == size:
        return None
    return f"takes values as wide as queries, {size}, and these have {width} features"
