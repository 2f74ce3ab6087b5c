"""Which year does a passage name? A task on the text that comes with the package."""

import re
import textwrap
from collections.abc import Iterator

from spade_jax.data.text_to_text.formats import Row, prefixed, text
from spade_jax.data.text_to_text.task import TextToText

_YEAR = re.compile(r"\b1[789]\d\d\b")


def passages_with_a_year(row: Row) -> Iterator[Row]:
    """Those passages of an address, of about a line, that name one year."""
    if not isinstance(row.get("text"), str):
        yield row  # For `TextToText.pair` to say what is wrong with it.
        return
    for passage in textwrap.wrap(row["text"], 80, break_long_words=False, break_on_hyphens=False):
        years = set(_YEAR.findall(passage))
        if len(years) == 1:
            yield {"text": passage, "named": years.pop()}


SOTU_YEAR = TextToText(
    "sotu_year",
    ("text",),
    "named",
    prefixed("year: ", "text"),
    text,
    ("accuracy",),
    splits={"train": ("train",), "validation": ("validation",)},
    expand=passages_with_a_year,
)
