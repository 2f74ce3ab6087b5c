"""How cells are written as text, and what is said of those that cannot be."""

import pytest
from sentences import SENTENCES, A, pair

from spade_jax.data.text_to_text.formats import (
    RowError,
    label_word,
    labelled_fields,
    prefixed,
    text,
)


@pytest.mark.parametrize("label", [1, 1.0, "1", " 1 ", "equivalent", " equivalent\t"])
def test_forms_of_a_label(label):
    assert pair("mrpc", {**SENTENCES, "label": label})[1] == "equivalent"


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (2, "'2'"),
        (-2, "'-2'"),
        (0.5, "'0.5'"),
        ("²", "'²'"),
        ("Equivalent", "'Equivalent'"),
        (True, "'True'"),
        ("1" * 5000, "'1+'"),
    ],
)
def test_an_unknown_label(label, shown):
    message = f"^label {shown} is no label; must be one of 'not_equivalent', 'equivalent'$"
    with pytest.raises(RowError, match=message):
        pair("mrpc", {**SENTENCES, "label": label})


def test_labels_that_are_numbers_have_no_class_numbers():
    """Or a table of stars 1 to 3 and a slip, 0, would give the 0 as a 1."""
    write = label_word(("1", "2", "3"), "column 'stars':")
    assert [write(value) for value in (1, "2", 3.0)] == ["1", "2", "3"]
    with pytest.raises(RowError, match="column 'stars': '0' is no label; must be one of '1', '2'"):
        write(0)
    write = label_word(("-0.5", "0.5"), "label")
    assert write(-0.5) == "-0.5"
    with pytest.raises(RowError, match="label '1' is no label"):
        write(1)


def test_values_as_text():
    values = ["as it is ", 3, 3.0, -0.5, True, 1e300]
    assert [text(value) for value in values[:5]] == ["as it is ", "3", "3", "-0.5", "True"]
    assert float(text(1e300)) == 1e300
    for value in (["a"], {"a": "b"}, b"a"):
        with pytest.raises(RowError, match=r"^.* is not a text$"):
            text(value)
    with pytest.raises(RowError, match=r"^.{60} is not a text$"):
        text(["long"] * 1000)


def test_inputs_of_several_columns_are_headed_by_their_names():
    row = {"question": " Who? ", "year": 1890.0, "context": A}
    write = labelled_fields("answer", ("question", "year", "context"))
    assert write(row) == f"answer question: Who? year: 1890 context: {A}"
    assert labelled_fields("", ("question",))(row) == "question: Who?"


def test_inputs_of_one_column_stand_behind_their_prefix_as_they_are():
    assert prefixed("summarize: ", "in")({"in": " One.\nTwo. "}) == "summarize:  One.\nTwo. "
    assert prefixed("", "in")({"in": 7.0}) == "7"


def test_whole_numbers_of_a_table_of_floats_are_labels():
    write = label_word(("1", "2", "3"), "column 'stars':")
    assert [write(value) for value in (3.0, "3.0", "3", 1)] == ["3", "3", "3", "1"]
    with pytest.raises(RowError, match=r"column 'stars': '2.5' is no label"):
        write(2.5)
