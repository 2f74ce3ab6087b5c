"""Numbers and paths of command lines and of the environment."""

import argparse
from pathlib import Path

import pytest

from spade_jax.config import ConfigError
from spade_jax.decoding.config import DecodingConfig
from spade_jax.parsing import PathOption, as_in, whole_from_environment, whole_number


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", action=whole_number(1, 1024), default=3)
    parser.add_argument("--lengths", action=whole_number(1, 1024), nargs="+")
    parser.add_argument("--top_p", action=as_in(DecodingConfig, "top_p"), default=1.0)
    parser.add_argument("--output", action=PathOption)
    return parser


def test_options_are_numbers_and_paths(parser):
    options = parser.parse_args(
        ["--workers=1024", "--lengths", "1", "2", "--top_p=1e-3", "--output=a/b"]
    )
    assert options == argparse.Namespace(
        workers=1024, lengths=[1, 2], top_p=1e-3, output=Path("a/b")
    )
    assert parser.parse_args([]).workers == 3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--workers=0", "--workers = 0: must be at least 1"),
        ("--workers=1025", "--workers = 1025: must be at most 1024"),
        ("--workers=two", "--workers = 'two': must be a whole number"),
        ("--workers=2.5", "--workers = '2.5': must be a whole number"),
        ("--workers=²", "--workers = '²': must be a whole number"),
        ("--workers=", "--workers = '': must be a whole number"),
        ("--work=0", "--workers = 0: must be at least 1"),
        ("--lengths=0", "--lengths = 0: must be at least 1"),
        ("--top_p=nan", "--top_p = nan: must be above 0 and at most 1"),
        ("--top_p=-inf", "--top_p = -inf: must be above 0"),
        ("--top_p=1e999", "--top_p = inf: must be at most 1"),
        ("--output=", "--output = '': must be a path"),
        ("--output=a\0b", r"--output = 'a\x00b': must be text in UTF-8 without NUL"),
        ("--output=\udcff", r"--output = '\udcff': must be text in UTF-8 without NUL"),
    ],
)
def test_wrong_options_are_named_in_a_sentence(parser, option, message):
    with pytest.raises(ConfigError) as refused:
        parser.parse_args([option])
    assert str(refused.value) == message


def test_numbers_of_many_digits_are_cut_in_messages(parser):
    with pytest.raises(ConfigError, match=r"^--workers = '1+ … 1+': must be a whole number$"):
        parser.parse_args([f"--workers={'1' * 5000}"])


@pytest.mark.parametrize(("text", "number"), [("7", 7), (" 7 ", 7), ("", 5), (None, 5)])
def test_numbers_of_the_environment(text, number):
    environment = {} if text is None else {"N": text}
    assert whole_from_environment("N", 1, 9, 5, environment) == number


@pytest.mark.parametrize("text", ["abc", "0", "10", "1.5", "9" * 5000])
def test_wrong_numbers_of_the_environment_are_named(text):
    with pytest.raises(ConfigError, match=r"^N = .*: must be (a whole|at least 1|at most 9)"):
        whole_from_environment("N", 1, 9, 5, {"N": text})
