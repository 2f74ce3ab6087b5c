"""The lines of decoding: what they are of bytes, and what stays of an output."""

import io

import pytest

from spade_jax.config import RunError
from spade_jax.data.config import DataConfig, DataError
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.decoding.lines import (
    Line,
    are_parts_of_one_text,
    line_tokens,
    one_line,
    read_lines,
)


def texts(data: bytes) -> list[str]:
    return [text for _, text in read_lines(io.BytesIO(data), "a.txt")]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"a\rb\n\rc\n", ["a\rb", "\rc"]),
        ("\ufeffa\n\ufeffb\n".encode(), ["a", "\ufeffb"]),
        ("a\u2028b\u0085c\x0bd\x1ce\n".encode(), ["a\u2028b\u0085c\x0bd\x1ce"]),
        (b"a\0b\n", ["a\0b"]),
    ],
)
def test_lines_end_at_line_feeds_alone_and_begin_behind_a_byte_order_mark(data, lines):
    assert texts(data) == lines


@pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
def test_a_line_that_is_no_utf8_is_named(mark):
    with pytest.raises(RunError, match=r"^a.txt, line 2: is not UTF-8 \(byte 0xe9 at 3\); must be"):
        texts(mark + b"ok line\ncaf\xe9 line\n")
    with pytest.raises(RunError, match=r"^a.txt, line 1: is not UTF-8 \(byte 0xe9 at 3\); must be"):
        texts(mark + b"caf\xe9 line\n")


def test_tokens_of_a_line():
    vocabulary = load_vocabulary(DataConfig())
    ids = vocabulary.encode("the state")
    assert line_tokens(Line("", "  the state\t"), vocabulary) == ids
    assert line_tokens(Line("", "<extra_id_3>the state"), vocabulary) == [vocabulary.size - 4, *ids]
    assert line_tokens(Line("", " \u3000\r"), vocabulary) is None
    with pytest.raises(DataError, match=r"^b.txt, line 7: <extra_id_100>: no such sentinel"):
        line_tokens(Line("b.txt, line 7", "<extra_id_100>"), vocabulary)


def test_an_output_is_one_line_and_else_as_the_model_wrote_it():
    assert one_line("a  b\tc\u00a0d") == "a  b\tc\u00a0d"
    assert one_line("a\nb \r\n\n c\rd") == "a b c d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A paragraph.\n\nAnother one.\n\nA third.\n", True),
        (
            "It goes on and on in\nlines that someone's\neditor has broken at\n"
            "about one length for\nall of the document.",
            True,
        ),
        ("A sentence.\nanother\n\nA third.\n", False),
        ("how to cook rice\nwhy\nwhere is the nearest station\nwhat\nis it late\nwho", False),
        ("国情咨文\n第二段\n第三段\n第四段\n第五段\n第六段", False),
        ("", False),
    ],
)
def test_a_file_that_looks_like_one_document(text, expected):
    assert are_parts_of_one_text(text.split("\n")) is expected
