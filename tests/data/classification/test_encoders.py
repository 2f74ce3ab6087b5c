"""Sequences of texts and images."""

import numpy as np
import pytest

from spade_jax.data.classification.config import LISTOPS_SYMBOLS, VOCABULARIES
from spade_jax.data.classification.encoders import (
    Bytes,
    Characters,
    Intensities,
    Pixels,
    Symbols,
)
from spade_jax.data.config import DataError


def test_bytes_are_moved_by_one():
    np.testing.assert_array_equal(Bytes()("aé\0"), [98, 0xC3 + 1, 0xA9 + 1, 1])
    assert Bytes().size == 257


def test_characters_are_those_that_occur_often_enough():
    characters = Characters.of(["aab", "ba é𝄞", "é𝄞𝄞"], min_count=2)
    assert characters.alphabet == "abé𝄞"
    assert characters.size == 6
    np.testing.assert_array_equal(characters("a𝄞é b"), [2, 5, 4, 1, 3])
    assert characters("abc" * 100).dtype == np.uint8
    assert characters.digest == Characters("abé𝄞").digest != Characters("ab𝄞é").digest


def test_symbols_of_listops_without_parentheses():
    symbols = Symbols(LISTOPS_SYMBOLS)
    assert symbols.size == 16
    tokens = symbols("( ( ( [MAX 3 ) 4 ) ] )")
    np.testing.assert_array_equal(tokens, [12, 4, 5, 15])
    np.testing.assert_array_equal(symbols("[MAX 3 4 ]"), tokens)
    with pytest.raises(DataError, match=r"^has '10'; must have 0, 1, .*\[SM, \] and parentheses$"):
        symbols("( [MIN 10 )")


def test_images_row_by_row():
    image = np.array([[0, 255], [7, 8]], np.uint8)
    np.testing.assert_array_equal(Pixels()(image), [0, 255, 7, 8])
    np.testing.assert_array_equal(Intensities()(image), [1, 256, 8, 9])


@pytest.mark.parametrize(
    ("encoder", "value", "text"),
    [
        (Bytes(), "a é", "a é"),
        (Characters("abé"), "a🙂é", "a\ufffdé"),
        (Symbols(LISTOPS_SYMBOLS), "( ( [MAX 3 ) ] )", "[MAX 3 ]"),
        (Pixels(), np.zeros((2, 2), np.uint8), None),
        (Intensities(), np.zeros((2, 2), np.uint8), None),
    ],
)
def test_texts_of_tokens(encoder, value, text):
    padded = np.concatenate([encoder(value).astype(np.int32), np.zeros(3, np.int32)])
    assert encoder.text(padded) == text


def test_sizes_that_do_not_depend_on_the_data_are_known_before():
    encoders = {"bytes": Bytes(), "listops": Symbols(LISTOPS_SYMBOLS), "intensities": Intensities()}
    assert {name: encoder.size for name, encoder in encoders.items()} == VOCABULARIES
