"""The task of the text that comes with the package."""

import gzip
import json

import pytest
from sentences import pair

from spade_jax.data.input_files import SHIPPED_TEXT
from spade_jax.data.text_to_text.formats import RowError
from spade_jax.data.text_to_text.registry import TASKS


def test_passages_of_addresses_that_name_one_year():
    words = "peace " * 26  # Two passages of 13 each.
    address = f"{words}In 1789, and again in 1789, we met. {words * 2}1800 and 1801. {words}1666"
    found = list(TASKS["sotu_year"].expand({"text": address, "year": 1802}))
    assert [row["named"] for row in found] == ["1789"]
    assert found[0]["text"].startswith("1789, and again in 1789, we met.")
    assert pair("sotu_year", found[0]) == (f"year: {found[0]['text']}", "1789")


@pytest.mark.parametrize("text", ["", "In 17890 or 1 789 or x1789.", "In 1666 and in 2001."])
def test_passages_that_name_no_year_are_left_out(text):
    assert list(TASKS["sotu_year"].expand({"text": text})) == []


@pytest.fixture(scope="module")
def shipped() -> list[tuple[dict, list[dict]]]:
    """The addresses of the validation split, each with its passages."""
    with gzip.open(SHIPPED_TEXT / "sotu.validation.jsonl.gz", "rt", encoding="utf-8") as file:
        addresses = [json.loads(line) for line in file]
    return [(address, list(TASKS["sotu_year"].expand(address))) for address in addresses]


def test_passages_are_whole_words_of_the_address_and_short(shipped):
    for address, rows in shipped:
        words = f" {' '.join(address['text'].split())} "
        for row in rows:
            assert len(row["text"]) <= 240
            assert f" {row['text']} " in words
            assert row["named"] in row["text"]


def test_the_shipped_addresses_make_pairs(shipped):
    pairs = [pair("sotu_year", row) for _, rows in shipped for row in rows]
    assert len(pairs) == 504
    written, target = pairs[0]
    assert written.startswith("year: November 10th, 1803, authorized us to borrow $1.75 millions ")
    assert target == "1803"
    assert all(1700 <= int(target) < 2000 for _, target in pairs)


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        ({}, r"^has no column 'text', but 'year'$"),
        ({"text": None}, r"^column 'text' is empty$"),
        ({"text": []}, r"^column 'text' is empty$"),
    ],
)
def test_an_address_without_text_is_left_for_pair_to_reject(gap, message):
    (row,) = TASKS["sotu_year"].expand({"year": 1790, **gap})
    with pytest.raises(RowError, match=message):
        pair("sotu_year", row)
