"""Which files paths and globs lead to."""

import pytest
from corpora import write_lines
from reading import read, text_source

from spade_jax.data.config import DataError, SourceConfig
from spade_jax.data.sources import check_source, list_files


@pytest.mark.parametrize("pattern", ["absent.txt", "absent*.txt", "no/such/place/*.txt"])
def test_missing_files(tmp_path, pattern):
    with pytest.raises(DataError, match=r"data\.sources\.train = '.*': no such file"):
        list_files(text_source(tmp_path / pattern), "train")


def test_a_file_counts_once_and_in_one_split(corpus):
    with pytest.raises(DataError, match=r"names .*train0\.txt twice"):
        list_files(text_source(f"{corpus}/train0.txt,{corpus}/train*"), "train")
    both = text_source(f"{corpus}/*", validation=f"{corpus}/validation.txt")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"validation\.txt is in data\.sources\.train as well"):
            check_source(both, split)


@pytest.fixture
def odd_names(tmp_path):
    """Files whose names are globs, or lists, of other files that are there as well."""
    for name in ("r1", "r2", "r[12]", "a", "b", "a.txt,b", "folder[1]/c", "folder1/c", "folder1/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lines(tmp_path / f"{name}.txt", [name])
    return tmp_path


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("{}/r[12].txt", ["r[12]"]),
        (("{}/r[12].txt",), ["r[12]"]),
        ("{}/r[12].txt,{}/a.txt", ["r[12]", "a"]),
        ("{}/r?.txt", ["r1", "r2"]),
        ("{}/a.txt,{}/b.txt", ["a", "b"]),
        ("{}/a.txt,b.txt", ["a.txt,b"]),
        (("{}/a.txt,b.txt", "{}/a.txt"), ["a.txt,b", "a"]),
        ("{}/folder[1]/*.txt", ["folder[1]/c"]),
        ("{}/folder*/c.txt", ["folder1/c", "folder[1]/c"]),
    ],
)
def test_a_path_that_exists_is_no_glob_and_no_list(odd_names, named, expected):
    many = isinstance(named, tuple)
    named = tuple(n.format(odd_names) for n in named) if many else named.format(*[odd_names] * 2)
    source = SourceConfig(kind="text", train=named)
    assert list_files(source, "train") == [f"{odd_names}/{name}.txt" for name in expected]
    assert read(source) == expected


def test_a_file_is_known_by_any_of_its_names(corpus, tmp_path):
    (tmp_path / "link.txt").symlink_to(corpus / "validation.txt")
    with pytest.raises(DataError, match=r"names .*link\.txt twice"):
        list_files(text_source(f"{tmp_path}/link.txt,{corpus}/validation.txt"), "train")
    both = text_source(f"{tmp_path}/link.txt", validation=f"{corpus}/validation.txt")
    with pytest.raises(DataError, match=r"validation\.txt is in data\.sources\.train as well"):
        check_source(both, "train")
