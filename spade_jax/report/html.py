"""Pieces of a page. What comes from data is text, and nothing in it is markup."""

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup of ours; any other string is text."""


def as_html(value: object) -> Html:
    """Markup as it is; all else as text."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def element(name: str, *inner: object, **attributes: str) -> Html:
    """`<name attributes>inner</name>`; an attribute's name may end in an underscore."""
    own = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{own}>{''.join(map(as_html, inner))}</{name}>")


def join(pieces: Iterable[object]) -> Html:
    """One after the other."""
    return Html("".join(map(as_html, pieces)))


def paragraph(*inner: object) -> Html:
    return element("p", *inner)


class Number(str):
    """Text that is a number, and stands at the right of its cell."""


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls where it is wider than the page."""
    rows = [list(map(_as_cell, row)) for row in rows]
    right = [isinstance(value, Number) for value in rows[0]] if rows else [False] * len(heads)
    head = (_cell("th", name, at_right, scope="col") for name, at_right in zip(heads, right))
    body = (
        element("tr", *(_cell("td", value, isinstance(value, Number)) for value in row))
        for row in rows
    )
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", whole, class_="wide")


def image(source: str, words: str) -> Html:
    """A picture, and what it shows for who does not see it."""
    return element("figure", Html(f'<img src="{escape(source)}" alt="{escape(words)}">'))


def _as_cell(value: object) -> object:
    return Number(f"{value:,}") if isinstance(value, int) else value


def _cell(name: str, value: object, at_right: bool, **attributes: str) -> Html:
    return element(name, value, **({"class_": "number"} if at_right else {}), **attributes)
